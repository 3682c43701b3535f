"""Markdown in which outside text stays text: names, reasons and samples can draw no table, link, image or HTML."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from lorabench.core.formatting import visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#!$@&])")
_LINK = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp)(:)|\b(www)(\.)")
_LIST_START = re.compile(r"^([-+=]|\d{1,9}(?=[.)]))")


def one_line(value: object) -> str:
    """One line; control and direction characters are shown as escapes."""
    text = "".join(map(visible, str(value)))
    return " ".join(text.split())


def escape(value: object, max_length: int | None = None) -> str:
    """Outside text for a paragraph, a list item or a cell: it shows as it is and means nothing."""
    text = one_line(value)
    if max_length is not None and len(text) > max_length:
        text = text[: max_length - 1] + "…"
    return _as_text(_escaped(text))


def _escaped(text: str) -> str:
    text = _SPECIAL.sub(r"\\\1", text)
    return _LINK.sub(lambda match: f"{match[1] or match[3]}\\{match[2] or match[4]}", text)


def code_block(text: str) -> str:
    """Outside text as it was typed, in a fence that it cannot close."""
    lines = [
        "".join(visible(character) if character != "\t" else character for character in line)
        for line in text.splitlines()
    ]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([fence, *lines, fence])


def wrapped(text: str, start: str = "", width: int = 118) -> str:
    """Ready Markdown after `start` on lines of at most `width` characters, where the text has spaces to break it at."""
    lines = textwrap.wrap(text, width - len(start), break_long_words=False, break_on_hyphens=False)
    first, *others = [line if place == 0 else _as_text(line) for place, line in enumerate(lines)] or [""]
    return "\n".join([start + first, *(" " * len(start) + line for line in others)])


def _as_text(line: str) -> str:
    """The line, which begins no list and no heading."""
    return _LIST_START.sub(lambda match: f"\\{match[1]}" if not match[1].isdigit() else f"{match[1]}\\", line)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> str:
    """A table of ready cells; columns from `numbers_from` on are aligned to the right."""
    marks = ["---" if place < numbers_from else "---:" for place in range(len(headings))]
    lines = [headings, marks, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def prose(sentence: str) -> str:
    """A sentence in which what stands between backticks is code and all else is text."""
    parts = one_line(sentence).split("`")
    if len(parts) % 2 == 0 or not all(part.strip() for part in parts[1::2]):
        return escape(sentence)
    return "".join(f"`{part}`" if place % 2 else _escaped(part) for place, part in enumerate(parts))


def bullets(sentences: Sequence[str]) -> str:
    """Outside or our own sentences as a list."""
    return "\n".join(f"- {prose(sentence)}." for sentence in sentences)
