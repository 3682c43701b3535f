"""Chat templates in five styles, each beside a plain Python function that writes the same text piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tests.hub.model_repositories import byte_level_tokenizer

Messages = list[tuple[str, str]]
Pieces = Iterator[tuple[str, str]]
"""Text and what it is: `read`, `answer` or `end`."""


@dataclass(frozen=True)
class Style:
    template: str
    pieces: Callable[[Messages], Pieces]
    specials: tuple[str, ...]
    bos: str
    eos: str

    def save(self, folder: Path, *, with_template: bool = True) -> PreTrainedTokenizerFast:
        """Write a tokenizer of this style; the template lies in a file of its own, as Transformers writes it."""
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = byte_level_tokenizer(400, list(self.specials))
        tokenizer.save(str(folder / "tokenizer.json"))
        settings = {"bos_token": self.bos, "eos_token": self.eos, "tokenizer_class": "PreTrainedTokenizerFast"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps({"vocab_size": tokenizer.get_vocab_size()}), encoding="utf-8")
        if with_template:
            (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")
        return PreTrainedTokenizerFast.from_pretrained(folder)


def _chatml(messages: Messages) -> Pieces:
    if messages[0][0] != "system":
        yield "<|im_start|>system\nBe of use.<|im_end|>\n", "read"
    for role, content in messages:
        yield f"<|im_start|>{role}\n", "read"
        yield from _answered(role, content, "<|im_end|>")
        yield "\n", "read"


def _llama3(messages: Messages) -> Pieces:
    yield "<|begin_of_text|>", "read"
    for role, content in messages:
        yield f"<|start_header_id|>{role}<|end_header_id|>\n\n", "read"
        yield from _answered(role, content.strip(), "<|eot_id|>")


def _gemma(messages: Messages) -> Pieces:
    yield "<bos>", "read"
    if messages[0][0] == "system":
        messages = [("user", f"{messages[0][1]}\n\n{messages[1][1]}"), *messages[2:]]
    for role, content in messages:
        yield f"<start_of_turn>{'model' if role == 'assistant' else role}\n", "read"
        yield from _answered(role, content.strip(), "<end_of_turn>")
        yield "\n", "read"


def _mistral(messages: Messages) -> Pieces:
    yield "<s>", "read"
    if messages[0][0] == "system":
        messages = [("user", f"{messages[0][1]}\n\n{messages[1][1]}"), *messages[2:]]
    for role, content in messages:
        if role == "user":
            yield f"[INST] {content} [/INST]", "read"
        else:
            yield " ", "read"
            yield from _answered(role, content, "</s>")


def _zephyr(messages: Messages) -> Pieces:
    for role, content in messages:
        yield f"<|{role}|>\n", "read"
        yield from _answered(role, content, "</s>")
        yield "\n", "read"


def _answered(role: str, content: str, end: str) -> Pieces:
    learned = role == "assistant"
    yield content, "answer" if learned else "read"
    yield end, "end" if learned else "read"


STYLES = {
    "chatml": Style(
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe of use.<|im_end|>\n{% endif %}"
        "{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\n' + turn['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        _chatml,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|endoftext|>",
        "<|im_end|>",
    ),
    "llama3": Style(
        "{{ bos_token }}{% for turn in messages %}"
        "{{ '<|start_header_id|>' + turn.role + '<|end_header_id|>\n\n' + turn.content | trim + '<|eot_id|>' }}"
        "{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        _llama3,
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    "gemma": Style(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system prompts') }}{% endif %}"
        "{% for turn in messages %}{% set who = 'model' if turn.role == 'assistant' else turn.role %}"
        "{{ '<start_of_turn>' + who + '\n' + turn.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        _gemma,
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<bos>",
        "<eos>",
    ),
    "mistral": Style(
        "{{ bos_token }}{% for turn in messages %}{% if turn.role == 'user' %}"
        "{{ '[INST] ' + turn.content + ' [/INST]' }}{% elif turn.role == 'assistant' %}"
        "{{ ' ' + turn.content + eos_token }}{% else %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% endfor %}",
        _mistral,
        ("<s>", "</s>"),
        "<s>",
        "</s>",
    ),
    "zephyr": Style(
        "{% for turn in messages %}{% if turn.role == 'assistant' %}<|assistant|>\n"
        "{% generation %}{{ turn.content + eos_token }}{% endgeneration %}\n\n"
        "{% else %}{{ '<|' + turn.role + '|>\n' + turn.content + eos_token + '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        _zephyr,
        ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"),
        "<s>",
        "</s>",
    ),
}
CONVERSATIONS: list[Messages] = [
    [("user", "What is 2 + 2?"), ("assistant", "4.")],
    [("system", "Answer as a pirate."), ("user", "Where is the gold?"), ("assistant", "Größe, 你好: naïve café ☠️")],
    [
        ("user", "Say user, then assistant."),
        ("assistant", "user\nassistant"),
        ("user", "a"),
        ("assistant", "a"),
        ("user", "def main():"),
        ("assistant", "    return 42\n\nThat is all"),
    ],
    [("user", "assistant\nGold?"), ("assistant", "Gold? assistant\nGold?"), ("user", "And now?"), ("assistant", "4")],
]
