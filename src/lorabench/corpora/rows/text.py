"""Rows of .txt and .md files: the blocks of lines between blank lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from lorabench.corpora.rows.kinds import Located
from lorabench.corpora.rows.opening import open_bytes, read_lines

_BEGINNING_BYTES = 65_536


def read_text(path: Path) -> Iterator[Located]:
    """Each block exactly as it is, and where it begins. Raises DataError."""
    with open_bytes(path) as content:
        lines = read_lines(content, path)
        yield from read_blocks(_divided(lines) if has_bare_returns(path) else lines)


def read_blocks(lines: Iterable[tuple[str, str]], longest: int | None = None) -> Iterator[Located]:
    """The blocks of some lines; one that is longer than so many characters ends with a line before."""
    block: list[str] = []
    began, length = "", 0
    for where, line in lines:
        length = length + len(line) if block else 0
        if longest is not None and length > longest:
            yield began, "\n".join(block)
            block, length = [], 0
        if line.strip():
            began = began if block else where
            block.append(line.removesuffix("\n"))
        elif block:
            yield began, "\n".join(block).removesuffix("\r")
            block = []
    if block:
        yield began, "\n".join(block).removesuffix("\r")


def has_bare_returns(path: Path) -> bool:
    """Whether lines end in a carriage return alone, as on old Macintoshes."""
    with open_bytes(path) as content:
        beginning = content.read(_BEGINNING_BYTES)
    return b"\n" not in beginning and b"\r" in beginning[:-1]


def _divided(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for where, line in lines:
        for part in line.split("\r"):
            yield where, part
