"""Reads rows of conversations: which format they are in, and what each side says.

A format is one function from a row to turns. What cannot be read is refused with the field at fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from lorabench.core.errors import DataError
from lorabench.corpora.documents import Turn

Format = Literal["text", "chat", "sharegpt", "prompt-completion", "continuation", "alpaca", "question-answer"]
Turns = tuple[Turn, ...]
Row = str | Turns
"""A text, or a conversation."""

_ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant", "model": "assistant",
    "bot": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool",
}  # fmt: skip


def find_format(fields: Iterable[str], text_field: str = "text") -> Format | None:
    """The format of rows with these fields: text where the text field is there; None where it is none that is known."""
    names = set(fields)
    if text_field in names:
        return "text"
    return next((name for name, wanted in _FIELDS.items() if wanted <= names), None)


def read_turns(row: Mapping[str, Any], format: Format) -> Turns:
    """What is said in a row. Raises DataError, naming the field, where it is not of that format."""
    missing = sorted(_FIELDS.get(format, _FIELDS["prompt-completion"]) - set(row))
    if missing:
        names = ", ".join(repr(str(name)[:40]) for name in list(row)[:12])
        raise DataError(f"it has no field {missing[0]!r}, which {format} needs; it has {names or 'no fields'}")
    return READERS[format](row)


def has_text(row: Row) -> bool:
    """Whether there is something to train on: text, or an answer."""
    if isinstance(row, str):
        return bool(row.strip())
    return any(turn.learned and turn.content.strip() for turn in row)


def question_and_answer(question: str, answer: str) -> Turns:
    """The shortest conversation."""
    return Turn("user", question), Turn("assistant", answer, learned=True)


def format_of(rows: Sequence[Row]) -> Format:
    """The format of rows that a source makes itself: text, or else conversations of one kind."""
    if not rows or isinstance(rows[0], str):
        return "text"
    return "prompt-completion" if rows[0][0].role == "prompt" else "chat"


def _read_chat(row: Mapping[str, Any]) -> Turns:
    return _messages(row["messages"], "messages")


def _read_sharegpt(row: Mapping[str, Any]) -> Turns:
    return _system(row) + _messages(row["conversations"], "conversations")


def _read_prompt_completion(row: Mapping[str, Any]) -> Turns:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        return Turn("prompt", prompt), Turn("completion", completion, learned=True)
    if isinstance(prompt, str) or isinstance(completion, str):
        other = "completion" if isinstance(prompt, str) else "prompt"
        kind = "nothing" if row[other] is None else type(row[other]).__name__
        raise DataError(f"{other} holds {kind}; prompt and completion should both be texts, or both lists of messages")
    asked = tuple(replace(turn, learned=False) for turn in _messages(prompt, "prompt"))
    return asked + _messages(completion, "completion")


def _read_continuation(row: Mapping[str, Any]) -> Turns:
    prompt, completion = _text(row["prompt"], "prompt"), _text(row["completion"], "completion")
    return Turn("beginning", prompt), Turn("continuation", completion, learned=True)


def _read_alpaca(row: Mapping[str, Any]) -> Turns:
    asked = _text(row["instruction"], "instruction")
    given = _text(row.get("input"), "input")
    turns = list(_system(row))
    for pair in row.get("history") or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError("history should be a list of pairs, an instruction and its output")
        turns += [Turn("user", _text(pair[0], "history")), Turn("assistant", _text(pair[1], "history"), learned=True)]
    turns.append(Turn("user", f"{asked}\n\n{given}" if given.strip() else asked))
    return *turns, Turn("assistant", _text(row["output"], "output"), learned=True)


def _read_question_answer(row: Mapping[str, Any]) -> Turns:
    """A question, beneath its context where the row has one."""
    question, context = _text(row["question"], "question"), _text(row.get("context"), "context")
    asked = f"{context}\n\n{question}" if context.strip() else question
    return _system(row) + question_and_answer(asked, _text(row["answer"], "answer"))


def _system(row: Mapping[str, Any]) -> Turns:
    """The system prompt that stands in a field of its own, if there is one."""
    content = _text(row.get("system"), "system")
    return (Turn("system", content),) if content.strip() else ()


def _messages(value: Any, field: str) -> Turns:
    if isinstance(value, str) and value.lstrip().startswith("["):  # as tables hold lists
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise DataError(f"{field} should be a list of messages, got text that is not JSON") from None
    if isinstance(value, Mapping):
        value = _rows_of(value)
    if not isinstance(value, list | tuple):
        raise DataError(f"{field} should be a list of messages, got {type(value).__name__}")
    return tuple(_message(message, f"{field}[{number}]") for number, message in enumerate(value))


def _rows_of(columns: Mapping[str, Any]) -> Any:
    """Messages that `datasets` holds by their fields (`{role: [...], content: [...]}`) one by one; else as it is."""
    values = list(columns.values())
    if not values or not all(isinstance(column, list | tuple) for column in values) or len({*map(len, values)}) > 1:
        return columns
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _message(message: Any, where: str) -> Turn:
    """One message of OpenAI's (role, content) or of ShareGPT's kind (from, value)."""
    if not isinstance(message, Mapping):
        raise DataError(f"{where} should be a mapping with role and content, got {type(message).__name__}")
    said = _first_of(message, "role", "from")
    role = _ROLES.get(said.lower()) if isinstance(said, str) else None
    if role is None:
        raise DataError(f"{where}: the role {str(said)[:40]!r} is not known; accepted: {', '.join(_ROLES)}")
    if message.get("tool_calls") or message.get("function_call"):
        raise DataError(f"{where} calls a tool, which is not read; write the call into its content, or leave it out")
    content = _content(_first_of(message, "content", "value"), where)
    learned = role == "assistant" and message.get("weight") != 0
    return Turn(role, content, learned)


def _first_of(message: Mapping[str, Any], *fields: str) -> Any:
    """Of the fields the first that holds something: tables give every row the fields of all."""
    return next((value for field in fields if (value := message.get(field)) is not None), None)


def _content(value: Any, where: str) -> str:
    """A message's text, or the texts of its parts. Images and sounds are refused."""
    if not isinstance(value, list | tuple):
        return _text(value, where)
    parts = []
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text":
            raise DataError(f"{where} has a part of type {str(kind)[:40]!r}; only text is read")
        parts.append(_text(part.get("text"), where))
    return "".join(parts)


def _text(value: Any, field: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{field} holds {type(value).__name__}, not text")
    return value


_FIELDS: dict[Format, set[str]] = {
    "chat": {"messages"},
    "sharegpt": {"conversations"},
    "prompt-completion": {"prompt", "completion"},
    "alpaca": {"instruction", "output"},
    "question-answer": {"question", "answer"},
}
"""By format that is found from its fields: those that every row has."""
READERS: dict[Format, Callable[[Mapping[str, Any]], Turns]] = {
    "chat": _read_chat,
    "sharegpt": _read_sharegpt,
    "prompt-completion": _read_prompt_completion,
    "continuation": _read_continuation,
    "alpaca": _read_alpaca,
    "question-answer": _read_question_answer,
}
FORMATS: tuple[str, ...] = ("text", *READERS)
