"""Batched greedy answers against Transformers' own unbatched ones, in float32, with and without adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from lorabench.core.errors import DataError, OutOfMemoryRunError
from lorabench.corpora.documents import Turn, make_conversation
from lorabench.methods.attach import attach
from lorabench.methods.saved import attach_saved
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import FrozenBase, load_base
from lorabench.models.continuation import continue_greedily
from lorabench.scoring.answers import Question, answer, questions_of, split_by_room
from lorabench.tokens.chat import ChatTokeniser
from lorabench.tokens.tokenizer import Tokeniser
from tests.weights import draw_weights

pytestmark = pytest.mark.usefixtures("cache", "one_thread")
LENGTHS = (3, 17, 1, 9, 9, 30, 2, 17, 5, 12, 8, 21, 4, 6, 7, 11, 13, 25)
NUM_NEW = 12


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorabench.scoring.answers.ANSWER_ROWS", 7)


def load(folder: Path) -> FrozenBase:
    base = load_base(folder, precision="fp32", device="cpu")
    torch.manual_seed(0)
    draw_weights(base.model, 0.2)
    return base


def questions(size: int) -> list[Question]:
    generator = np.random.default_rng(0)
    drawn = [generator.integers(1, size, length).tolist() for length in LENGTHS]
    return [Question(f"{place:064x}", tuple(ids), "") for place, ids in enumerate(drawn)]


def by_transformers(model: Any, asked: list[Question], ends: list[int]) -> list[list[int]]:
    """One prompt at a time, cut at the first of `ends`."""
    rows = []
    for question in asked:
        ids = torch.tensor([question.prompt])
        options = {"do_sample": False, "max_new_tokens": NUM_NEW, "pad_token_id": 0, "eos_token_id": ends or None}
        row = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()
        stop = next((place for place, token in enumerate(row) if token in ends), len(row))
        rows.append(row[:stop])
    return rows


def check(base: FrozenBase) -> None:
    """With tokens that end answers, and with none."""
    asked = questions(base.vocabulary_size)
    free = by_transformers(base.model, asked, [])
    ends = sorted({row[4] for row in free[::3]})
    for end_ids in ([], ends):
        found = answer(base, repr, asked, max_new_tokens=NUM_NEW, end_ids=end_ids)
        assert list(found.texts) == [repr(row) for row in by_transformers(base.model, asked, end_ids)]
        assert found.num_tokens.tolist() == [len(json.loads(text)) for text in found.texts]
        assert found.num_cut == sum(found.num_tokens == NUM_NEW) < (len(asked) if end_ids else len(asked) + 1)
    assert len(set(found.texts)) > len(asked) / 4


@pytest.mark.parametrize("family", ["smollm2", "gpt2", "pythia", "gemma"])
def test_answers_are_transformers_own(family: str, tiny_model: Callable[[str], Path]) -> None:
    base = load(tiny_model(family))
    assert base.can_pad
    check(base)


def test_where_memory_runs_out_half_as_many_are_written_at_once(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tried = load(tiny_model("smollm2")), []

    def small(base: FrozenBase, prompts: Any, **options: Any) -> list[list[int]]:
        tried.append(len(prompts))
        if len(prompts) > room:
            raise MemoryError
        return continue_greedily(base, prompts, **options)

    monkeypatch.setattr("lorabench.scoring.answers.continue_greedily", small)
    room = 2
    check(base)
    assert max(tried) == 7
    assert sum(size for size in tried if size <= room) == 2 * len(LENGTHS)
    room = 0
    with pytest.raises(OutOfMemoryRunError, match="answering a single prompt"):
        answer(base, repr, questions(base.vocabulary_size), max_new_tokens=NUM_NEW, end_ids=[])


@pytest.mark.parametrize("family", ["smollm2", "gpt2"])
def test_so_are_those_with_an_adapter(family: str, tiny_model: Callable[[str], Path]) -> None:
    base = load(tiny_model(family))
    adapter = attach(base, AdapterSettings(rank=4), seed=0)
    draw_weights(adapter.trained_model, 0.2)
    check(base)
    adapter.detach()


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.parametrize("kind", ["lora", "prompt_tuning"])
def test_so_are_those_of_saved_adapters(kind: str, tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_model("smollm2")
    model = load(folder).model
    config: Any = (
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        if kind == "lora"
        else PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    )
    wrapped = get_peft_model(model, config)
    draw_weights(wrapped, 0.2)
    wrapped.save_pretrained(str(tmp_path))
    base = load(folder)
    attach_saved(base, tmp_path)
    assert base.can_pad == (kind == "lora")
    check(base)


def test_what_the_model_s_own_settings_ask_for_is_left_out(tiny_model: Callable[[str], Path]) -> None:
    base = load(tiny_model("gpt2"))
    asked = questions(base.vocabulary_size)
    before = answer(base, repr, asked, max_new_tokens=NUM_NEW, end_ids=[])
    own = base.model.generation_config
    own.repetition_penalty, own.num_beams, own.do_sample, own.max_length = 5.0, 3, True, 4
    assert answer(base, repr, asked, max_new_tokens=NUM_NEW, end_ids=[]).texts == before.texts
    assert base.model.generation_config is own


def test_a_prompt_is_what_stands_before_the_last_answer(tiny_model: Callable[[str], Path]) -> None:
    tokeniser = Tokeniser(tiny_model("gpt2"))
    chat = ChatTokeniser(tokeniser, "gpt2")
    turns = [("user", "Hello"), ("assistant", "Hi"), ("user", "What is it?"), ("assistant", "A stone."), ("user", "Ah")]
    talk = make_conversation([Turn(role, text, role == "assistant") for role, text in turns])
    pair = make_conversation([Turn("prompt", "The sky is"), Turn("completion", " blue.", learned=True)])
    first, second = questions_of([talk, pair], chat.encode([talk, pair]))
    assert (first.reference, second.reference) == ("A stone.", "blue.")
    end = tokeniser.decode([tokeniser.end_token_id or 0])
    assert (
        tokeniser.decode(first.prompt[1:]) == f"User: Hello\n\nAssistant: Hi{end}\n\nUser: What is it?\n\nAssistant: "
    )
    assert tokeniser.decode(second.prompt[1:]) == "The sky is"
    assert first.prompt[0] == tokeniser.prefix_token_id
    assert [question.document_hash for question in (first, second)] == [talk.hash, pair.hash]


def test_prompts_without_room_are_counted_and_none_with_room_is_refused() -> None:
    asked = questions(50)
    kept, num_left_out = split_by_room(asked, room=20, max_new_tokens=8)
    assert (len(kept), num_left_out) == (sum(length <= 12 for length in LENGTHS), sum(n > 12 for n in LENGTHS))
    with pytest.raises(
        DataError, match="no prompt leaves room for 20 new tokens in the model's 20; the shortest has 1"
    ):
        split_by_room(asked, room=20, max_new_tokens=20)


def test_text_from_the_end_of_turn_on_is_no_part_of_an_answer(tiny_model: Callable[[str], Path]) -> None:
    base = load(tiny_model("gpt2"))
    asked = questions(base.vocabulary_size)[:2]
    whole = answer(base, repr, asked, max_new_tokens=NUM_NEW, end_ids=[])
    mark = whole.texts[0][5:8]
    cut = answer(base, repr, asked[:1], max_new_tokens=NUM_NEW, end_ids=[], end_text=mark)
    assert cut.texts == (whole.texts[0].partition(mark)[0],)
    assert cut.is_finished.tolist() == [True]
