from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lorabench.core.errors import ModelError
from lorabench.corpora.documents import Document, Turn, make_conversation, make_document
from lorabench.tokens.chat import ChatTokeniser
from lorabench.tokens.packing import ANSWER, END_OF_TURN
from lorabench.tokens.tokenizer import Tokeniser
from tests.tokens.chat_cases import CONVERSATIONS, STYLES, Messages, Style

pytestmark = pytest.mark.usefixtures("cache")
KINDS = {"read": 0, "answer": ANSWER, "end": END_OF_TURN}


def conversation(messages: Messages) -> Document:
    return make_conversation([Turn(role, content, role == "assistant") for role, content in messages])


def expected(style: Style, tokenizer: object, messages: Messages) -> tuple[list[int], list[int]]:
    """Ids and marks by another way: the pieces are written out, and each token is what its characters are."""
    pieces = list(style.pieces(messages))
    kinds = np.concatenate([np.full(len(text), KINDS[kind]) for text, kind in pieces])
    encoded = tokenizer("".join(text for text, _ in pieces), add_special_tokens=False, return_offsets_mapping=True)  # type: ignore[operator]
    marks = [int(kinds[start:stop].max()) for start, stop in encoded["offset_mapping"]]
    return encoded["input_ids"], marks


@pytest.mark.parametrize("name", STYLES)
def test_marks_are_those_of_another_implementation(name: str, tmp_path: Path) -> None:
    style = STYLES[name]
    tokenizer = style.save(tmp_path)
    chat = ChatTokeniser(Tokeniser(tmp_path), name)
    for _ in ("made", "kept"):
        encoded = chat.encode([conversation(messages) for messages in CONVERSATIONS])
        read = zip(CONVERSATIONS, encoded.prefix, encoded.tokens, encoded.marks, strict=True)
        for messages, prefix, tokens, marks in read:
            ids, wanted = expected(style, tokenizer, messages)
            assert [prefix, *tokens.tolist()] == ids
            assert [0, *marks.tolist()] == wanted
            assert END_OF_TURN in wanted


@pytest.mark.parametrize("name", STYLES)
def test_the_text_is_what_transformers_writes(name: str, tmp_path: Path) -> None:
    style = STYLES[name]
    tokenizer = style.save(tmp_path)
    chat = ChatTokeniser(Tokeniser(tmp_path), name)
    for messages in CONVERSATIONS[:1] + CONVERSATIONS[2:]:
        written = [{"role": role, "content": content} for role, content in messages]
        turns = conversation(messages).turns or ()
        assert chat.template.render(turns).text == tokenizer.apply_chat_template(written, tokenize=False)
        prompt = tokenizer.apply_chat_template(written[:-1], tokenize=False, add_generation_prompt=True)
        assert chat.template.render_prompt(turns[:-1]) == prompt


def test_a_template_that_rewrites_an_answer_is_refused(tmp_path: Path) -> None:
    style = STYLES["chatml"]
    style.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{% set said = m.content %}"
        "{% if m.role == 'assistant' and not loop.last %}{% set said = said.split('</think>')[-1] %}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\n' + said + '<|im_end|>\n' }}{% endfor %}"
    )
    chat = ChatTokeniser(Tokeniser(tmp_path), "thinker")
    last = [("user", "Hm?"), ("assistant", "<think>so</think>Yes."), ("user", "Why?")]
    chat.encode([conversation([("user", "Hm?"), ("assistant", "<think>so</think>Yes.")])])
    with pytest.raises(ModelError, match=r"does not show the answer '<think>so</think>Yes.' \(turn 2 of 4\)"):
        chat.encode([conversation([*last, ("assistant", "So.")])])


def test_a_template_that_writes_a_turn_by_another_is_followed(tmp_path: Path) -> None:
    style = STYLES["chatml"]
    style.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if loop.last and m.role == 'assistant' and '<think>' not in m.content %}"
        "{{ '<think>\n</think>\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    chat = ChatTokeniser(Tokeniser(tmp_path), "thinker")
    for answer in ("Yes.", "<think>\nso\n</think>\nYes."):
        text = chat.encode([conversation([("user", "Hm?"), ("assistant", answer)])])
        assert chat.tokeniser.decode(text.tokens[0][text.marks[0] == ANSWER].tolist()) == answer
        assert (text.marks[0] == END_OF_TURN).sum() == 1


def test_without_a_template_two_texts_are_one_and_messages_get_the_plain_one(tmp_path: Path) -> None:
    style = STYLES["zephyr"]
    style.save(tmp_path, with_template=False)
    tokeniser = Tokeniser(tmp_path)
    chat = ChatTokeniser(tokeniser, "base")
    pair = make_conversation([Turn("prompt", "Once upon"), Turn("completion", " a time 12", learned=True)])
    turns = conversation([("user", "Hm?"), ("assistant", "Yes.")])
    text = chat.encode([pair, turns])
    assert text.prefix == [tokeniser.prefix_token_id] * 2
    assert [tokeniser.decode(ids.tolist()) for ids in text.tokens] == [
        "Once upon a time 12</s>",
        "User: Hm?\n\nAssistant: Yes.</s>",
    ]
    for ids, marks, answer in zip(text.tokens, text.marks, (" a time 12", " Yes."), strict=True):
        assert tokeniser.decode(ids[marks == ANSWER].tolist()).strip() == answer.strip()
        assert tokeniser.decode(ids[marks == END_OF_TURN].tolist()) == "</s>"
    assert not chat.template.is_own


def test_a_token_never_holds_words_of_a_prompt_and_of_an_answer(tmp_path: Path) -> None:
    STYLES["zephyr"].save(tmp_path, with_template=False)
    tokeniser = Tokeniser(tmp_path)
    assert len(tokeniser.encode([make_document("letter")])[0]) == 1
    chat = ChatTokeniser(tokeniser, "base")
    text = chat.encode([make_conversation([Turn("prompt", "let"), Turn("completion", "ter", learned=True)])])
    assert tokeniser.decode(text.tokens[0][text.marks[0] == ANSWER].tolist()) == "ter"
    assert tokeniser.decode(text.tokens[0][text.marks[0] == 0].tolist()) == "let"


def test_text_is_the_same_every_day(tmp_path: Path) -> None:
    STYLES["chatml"].save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    chat = ChatTokeniser(Tokeniser(tmp_path), "dated")
    assert chat.template.render((Turn("user", " a"), Turn("assistant", "b", learned=True))).text == "26 Jul 2024 ab"


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    STYLES["chatml"].save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    chat = ChatTokeniser(Tokeniser(tmp_path), "hostile")
    with pytest.raises(ModelError, match="its chat template refuses a conversation"):
        chat.encode([conversation(CONVERSATIONS[0])])
