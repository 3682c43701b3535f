"""The Modelfile for Ollama: what it does not take from a GGUF file itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorabench.core.errors import ModelError
from lorabench.corpora.documents import Turn
from lorabench.deploy.gguf.vocabulary import adds_beginning
from lorabench.models.shape import read_config
from lorabench.tokens.templates import ChatTemplate, read_template
from lorabench.tokens.tokenizer import read_json

_MAX_CONTEXT = 8192
_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
"""Settings of generation by Transformers' names: Ollama's."""
_PROBES = (("user",), ("user", "assistant", "user"), ("system", "user"), ("system", "user", "assistant", "user"))
"""Conversations on which a translated template is compared with the model's own."""


def modelfile(file_name: str, merged: Path) -> str:
    """The model's chat template in Ollama's language, its context and its settings of generation.

    Repetitions are penalised only where the model's settings say so, as everywhere but in Ollama's defaults.
    """
    lines = [f"FROM ./{file_name}"]
    config = read_config(merged)
    length = config.get("max_position_embeddings") or config.get("n_positions")
    if length:
        lines.append(f"PARAMETER num_ctx {min(int(length), _MAX_CONTEXT)}")
    settings = {"repetition_penalty": 1.0} | read_json(merged / "generation_config.json")
    for name, theirs in _PARAMETERS.items():
        if isinstance(settings.get(name), int | float):
            lines.append(f"PARAMETER {theirs} {settings[name]:g}")
    return "\n".join([*lines, *_template_lines(merged)]) + "\n"


def _template_lines(merged: Path) -> list[str]:
    try:
        template = read_template(merged, merged.name)
        if not template.is_own:
            return ['TEMPLATE "{{ .Prompt }}"']
        beginning = template.tokens.get("bos_token", "")
        turns = translate(template, beginning if beginning and _is_added(merged) else "")
    except ModelError:
        turns = None
    if turns is None:
        return ["# The model's chat template has no translation: Ollama takes one that it knows, or none."]
    lines = [f'TEMPLATE """{turns.go()}"""']
    if turns.default_system:
        lines.append(f'SYSTEM """{turns.default_system}"""')
    end = template.end_of_turn
    return [*lines, f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}"] if end else lines


def _is_added(merged: Path) -> bool:
    """Whether whoever runs the GGUF file puts the token for a beginning before each text."""
    from transformers import AutoTokenizer

    return adds_beginning(AutoTokenizer.from_pretrained(str(merged), local_files_only=True, trust_remote_code=False))


@dataclass(frozen=True)
class Turns:
    """A chat template that writes each turn by its role alone."""

    around: dict[str, tuple[str, str]]
    """By role: what stands before and after the content."""
    start_of_answer: str
    default_system: str
    """Written where a conversation has no system prompt of its own."""

    def go(self) -> str:
        """As a template of Go, over `.Messages`."""
        parts, word = [], "if"
        for role, (before, after) in self.around.items():
            parts.append(f'{{{{ {word} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}')
            word = "else if"
        return f"{{{{ range .Messages }}}}{''.join(parts)}{{{{ end }}}}{{{{ end }}}}{self.start_of_answer}"

    def write(self, turns: Sequence[Turn]) -> str:
        """What Ollama makes of a conversation that waits for an answer."""
        if self.default_system and turns[0].role != "system":
            turns = [Turn("system", self.default_system), *turns]
        written = (self.around[turn.role][0] + turn.content + self.around[turn.role][1] for turn in turns)
        return "".join(written) + self.start_of_answer


def translate(template: ChatTemplate, beginning: str) -> Turns | None:
    """The template by roles, without the `beginning` of every text; None where both do not write the same.

    Raises ModelError for a template that refuses a conversation.
    """
    asked = _cut(template, ("user", "assistant", "user"), beginning)
    alone = _cut(template, ("user",), beginning)
    if asked is None or alone is None:
        return None
    end = template.end_of_turn
    before_user = _common_end(alone[0], asked[2])
    before_user = before_user[_end_of_turn(before_user, end) :]
    after_user = _common_start(asked[1], asked[3])
    after_user = after_user[: _end_of_turn(after_user, end) or len(after_user)]
    around = {
        "user": (before_user, after_user),
        "assistant": (asked[1][len(after_user) :], asked[2].removesuffix(before_user)),
    }
    default_system = ""
    if template.takes_system:
        told = _cut(template, ("system", "user"), beginning)
        if told is None or not told[1].endswith(before_user):
            return None
        before, after = told[0], told[1].removesuffix(before_user)
        around = {"system": (before, after), **around}
        default_system = alone[0].removesuffix(before_user)
        if default_system and not (default_system.startswith(before) and default_system.endswith(after)):
            return None
        default_system = default_system.removeprefix(before).removesuffix(after)
    turns = Turns(around, asked[3][len(after_user) :], default_system)
    texts = (*(text for pair in around.values() for text in pair), turns.start_of_answer, default_system)
    if any(mark in text for text in texts for mark in ("{{", "}}", '"""')):
        return None
    roles = [probe for probe in _PROBES if template.takes_system or "system" not in probe]
    talks = [_talk(probe) for probe in roles]
    is_alike = all(turns.write(talk) == template.render_prompt(talk).removeprefix(beginning) for talk in talks)
    return turns if is_alike else None


def _talk(roles: Sequence[str]) -> list[Turn]:
    return [Turn(role, f"Text {place} of {role}.") for place, role in enumerate(roles)]


def _cut(template: ChatTemplate, roles: Sequence[str], beginning: str) -> list[str] | None:
    """What stands around the contents of a conversation; None where a content is not there as it is."""
    talk = _talk(roles)
    text, pieces = template.render_prompt(talk).removeprefix(beginning), list[str]()
    for turn in talk:
        piece, found, text = text.partition(turn.content)
        if not found:
            return None
        pieces.append(piece)
    return [*pieces, text]


def _end_of_turn(text: str, mark: str) -> int:
    """The place behind the mark and the white space after it; 0 where it is not there."""
    before, found, rest = text.partition(mark) if mark else (text, "", "")
    return len(before) + len(mark) + len(rest) - len(rest.lstrip()) if found else 0


def _common_start(one: str, two: str) -> str:
    length = next((place for place, pair in enumerate(zip(one, two, strict=False)) if len(set(pair)) > 1), None)
    return one[: min(len(one), len(two)) if length is None else length]


def _common_end(one: str, two: str) -> str:
    return _common_start(one[::-1], two[::-1])[::-1]
