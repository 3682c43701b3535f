"""Writes conversations as a model reads them, and says where in that text the answers are.

The model's chat template does the writing, in a sandbox; a model without one gets the plain template below. Where an
answer stands is found by rendering, with no help of the template: with marks in place of all contents a template shows
what it puts between them, and a conversation's text must be exactly those pieces with the contents in between. Where a
template writes one turn otherwise because of another, each answer is looked for by itself.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorabench.core.errors import ModelError
from lorabench.corpora.documents import Turn
from lorabench.tokens.tokenizer import read_json

if TYPE_CHECKING:
    from jinja2 import Environment, Template

PLAIN = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
"""Of models without a chat template."""
DATE = datetime.datetime(2024, 7, 26, tzinfo=datetime.UTC)
"""What templates that write today's date are told, so that the same text is read every day."""
ROLES = {"prompt": "user", "completion": "assistant"}
"""What the two texts of a row are in a chat template."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text. Spans are in characters, one for each answer, in their order."""

    text: str
    answers: tuple[Span, ...]
    ends: tuple[Span, ...]
    """Of the end of each turn: from the end of the answer to that of the mark; empty where there is none."""


@dataclass(frozen=True)
class ChatTemplate:
    """A model's way of writing conversations; `source` is Jinja."""

    owner: str
    """Whose it is, for messages."""
    source: str
    is_own: bool
    """False: the plain one, as the model has none."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens by the names that templates use: bos_token, eos_token, …"""

    @property
    def name(self) -> str:
        """For people."""
        return "the model's chat template" if self.is_own else "lorabench's plain template"

    @property
    def sha256(self) -> str:
        """Of the template with the tokens that it is told."""
        return hashlib.sha256(json.dumps([self.source, sorted(self.tokens.items())]).encode()).hexdigest()

    @cached_property
    def _compiled(self) -> Template:
        from jinja2 import TemplateError

        try:
            return _environment().from_string(self.source)
        except TemplateError as error:
            raise ModelError(f"{self.owner}: its chat template is not valid: {_reason(error)}") from None

    @cached_property
    def _pieces(self) -> dict[tuple[str, ...], list[str] | None]:
        return {}

    @cached_property
    def end_of_turn(self) -> str:
        """What ends an answer: the first word of what follows the last one; empty where nothing does."""
        pieces = self._between((Turn("user", ""), Turn("assistant", "")))
        following = pieces[-1].split() if pieces else []
        return following[0] if following else ""

    def render(self, turns: Sequence[Turn]) -> Rendered:
        """The conversation's text. Raises ModelError where the template refuses it, or rewrites an answer."""
        if turns[-1].role in ("completion", "continuation") and self._joins(turns):
            beginning, answer, end = turns[0].content, turns[1].content, self.tokens.get("eos_token", "")
            start = len(beginning)
            stop = start + len(answer)
            return Rendered(beginning + answer + end, ((start, stop),), ((stop, stop + len(end)),))
        turns = self._with_known_roles(turns)
        text = self._write(turns)
        spans = self._all_spans(text, turns)
        answers = [
            self._span(text, turns, place) if spans is None else spans[place]
            for place, turn in enumerate(turns)
            if turn.learned
        ]
        return Rendered(text, tuple(answers), tuple(self._end(text, stop) for _, stop in answers))

    def render_prompt(self, turns: Sequence[Turn]) -> str:
        """What a model is given to answer: these turns, and the beginning of its own."""
        if turns[-1].role == "beginning" or (turns[-1].role == "prompt" and not self.is_own):
            return turns[-1].content
        return self._write(self._with_known_roles(turns), add_generation_prompt=True)

    def _joins(self, turns: Sequence[Turn]) -> bool:
        """Whether two texts are one, without a template: as asked for, or because the model has none."""
        return turns[-1].role == "continuation" or not self.is_own

    def _with_known_roles(self, turns: Sequence[Turn]) -> list[Turn]:
        """With the roles that templates know; a system prompt that this one refuses goes before the first question."""
        known = [replace(turn, role=ROLES.get(turn.role, turn.role)) for turn in turns]
        if len(known) > 1 and known[0].role == "system" and known[1].role == "user" and not self.takes_system:
            merged = Turn("user", f"{known[0].content}\n\n{known[1].content}")
            return [merged, *known[2:]]
        return known

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template writes system prompts."""
        try:
            return "\ue000" in self._write([Turn("system", "\ue000"), Turn("user", "a"), Turn("assistant", "b")])
        except ModelError:
            return False

    def _write(self, turns: Sequence[Turn], *, add_generation_prompt: bool = False) -> str:
        from jinja2 import TemplateError

        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            return self._compiled.render(
                messages=messages, tools=None, add_generation_prompt=add_generation_prompt, **self.tokens
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            roles = ", ".join(turn.role for turn in turns[:8])
            raise ModelError(
                f"{self.owner}: its chat template refuses a conversation of {roles}: {_reason(error)}"
            ) from None

    def _between(self, turns: Sequence[Turn]) -> list[str] | None:
        """What the template puts before, between and after contents of these roles; None where it hides some."""
        roles = tuple(turn.role for turn in turns)
        if roles not in self._pieces:
            marks = [_mark(place) for place in range(len(roles))]
            text = self._write([Turn(role, mark) for role, mark in zip(roles, marks, strict=True)])
            self._pieces[roles] = _cut_at(text, marks)
        return self._pieces[roles]

    def _all_spans(self, text: str, turns: Sequence[Turn]) -> list[Span] | None:
        """Where each content stands, if the text is made of the pieces and the contents and nothing else."""
        pieces = self._between(turns)
        if pieces is None or not text.startswith(pieces[0]):
            return None
        place, spans = len(pieces[0]), []
        for turn, following in zip(turns, pieces[1:], strict=True):
            forms = (form for form in _forms(turn.content) if text.startswith(form + following, place))
            form = next(forms, None)
            if form is None:
                return None
            spans.append((place, place + len(form)))
            place += len(form) + len(following)
        return spans if place == len(text) else None

    def _span(self, text: str, turns: Sequence[Turn], place: int) -> Span:
        """Where one answer stands: between what is written before and after a mark in its place, or after a prompt."""
        content = turns[place].content
        marked = [*turns[:place], replace(turns[place], content=_mark(place)), *turns[place + 1 :]]
        around = _cut_at(self._write(marked), [_mark(place)])
        if around is not None:
            before, after = around
            for form in _forms(content):
                if text == before + form + after:
                    return len(before), len(before) + len(form)
        prompt = self._write(turns[:place], add_generation_prompt=True) if place else ""
        if text.startswith(prompt):
            for form in _forms(content):
                if form and text.startswith(form, len(prompt)):
                    return len(prompt), len(prompt) + len(form)
        raise ModelError(
            f"{self.owner}: its chat template does not show the answer {content[:60]!r} (turn {place + 1} of "
            f"{len(turns)}) as it is, so that nothing exact can be trained on; leave out what it rewrites, such as the "
            "thinking of earlier turns"
        )

    def _end(self, text: str, stop: int) -> Span:
        """From the end of an answer to that of the mark that ends its turn."""
        rest = text[stop:]
        blank = len(rest) - len(rest.lstrip())
        mark = self.end_of_turn
        return (stop, stop + blank + len(mark)) if mark and rest.startswith(mark, blank) else (stop, stop)


def read_template(folder: Path, owner: str, eos_token: str | None = None) -> ChatTemplate:
    """The chat template of a model folder, or the plain one. Raises ModelError for one that cannot be read.

    `eos_token` is the model's, where its tokenizer's files name none.
    """
    settings = read_json(folder / "tokenizer_config.json")
    tokens = ({} if eos_token is None else {"eos_token": eos_token}) | _special_tokens(folder, settings)
    source: Any = settings.get("chat_template")
    try:
        source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{owner}: its chat_template.jinja cannot be read: {_reason(error)}") from None
    if isinstance(source, list):
        named = {item.get("name"): item.get("template") for item in source if isinstance(item, dict)}
        source = named.get("default")
        if source is None:
            names = ", ".join(map(str, named))
            raise ModelError(f"{owner}: it has the chat templates {names}, of which none is called default")
    if isinstance(source, str) and source.strip():
        return ChatTemplate(owner, source, is_own=True, tokens=tokens)
    return ChatTemplate(owner, PLAIN, is_own=False, tokens={"eos_token": "", **tokens})


def _special_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for values in (read_json(folder / "special_tokens_map.json"), settings):
        for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"):
            token = values.get(name)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found[name] = token
    return found


def _mark(place: int) -> str:
    """Characters of Unicode's private use, which no template writes by itself."""
    return f"\ue000{place}\ue001"


def _cut_at(text: str, marks: Sequence[str]) -> list[str] | None:
    """The pieces of the text around marks that each stand in it once, in their order; None where they do not."""
    pieces = []
    for mark in marks:
        piece, found, text = text.partition(mark)
        if not found or mark in text:
            return None
        pieces.append(piece)
    return [*pieces, text] if "\ue000" not in text else None


def _forms(content: str) -> Iterator[str]:
    """The content as templates may write it: as it is, or without white space around it."""
    yield from dict.fromkeys((content, content.rstrip(), content.lstrip(), content.strip()))


def _environment() -> Environment:
    """Jinja as Transformers sets it up for chat templates, with one date for ever."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}…{% endgeneration %}` is its content: answers are found without it."""

        def __init__(self, environment: Environment) -> None:
            super().__init__(environment)
            self.tags = {"generation"}

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **others: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **others)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = DATE.strftime
    return environment


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
