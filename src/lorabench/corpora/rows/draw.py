"""Rows of parts that are spread evenly over large files, so that a budget is drawn from all of them in little time.

Lines can be entered anywhere, Parquet and Arrow files at their row groups and batches. Compressed files, tables, arrays
and streams can only be entered at their beginning; which it was is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import IO

from lorabench.corpora.rows.columns import Columns, num_arrow_parts, num_parquet_parts, read_arrow, read_parquet
from lorabench.corpora.rows.jsonrows import is_lines, parse_line
from lorabench.corpora.rows.kinds import Kind, Located
from lorabench.corpora.rows.opening import read_lines
from lorabench.corpora.rows.read import check_file, read_rows
from lorabench.corpora.rows.text import has_bare_returns, read_blocks

PLACES = 64
"""From so many places rows are read side by side, where the files can be entered at them."""
PLACES_OF_COLUMNS = 8
"""Fewer, as each holds a part of a row group in memory."""
RAW = 2
"""Bytes of a file of lines that are read at most for a byte of text."""
LONGEST_BLOCK = 1_000_000
"""Characters of a text without blank lines that are read as one."""


def draw_rows(files: Sequence[Path], columns: Columns, num_bytes: int) -> tuple[Iterator[Located], str]:
    """Rows of all places in turn, to be read as far as they are needed, and the places in words.

    Of files of lines about `RAW` times so many bytes at most, all of which `hash_of_places` is of. Raises DataError.
    """
    chosen = [files[index * len(files) // PLACES] for index in range(PLACES)] if len(files) > PLACES else list(files)
    each = _places_of_each(len(files))
    parts = [part for file in chosen for part in _parts(file, each, columns, _span(num_bytes))]
    rows = (row for rows in zip_longest(*parts) for row in rows if row is not None)
    of = "the file" if len(files) == 1 else f"{len(chosen)} of {len(files)} files"
    if len(parts) > len(chosen):
        return rows, f"{len(parts)} places spread evenly over {of}"
    return rows, f"the beginning of {of}, which cannot be entered elsewhere"


def _places_of_each(num_files: int) -> int:
    return max(1, PLACES // num_files)


def _span(num_bytes: int) -> int:
    """Bytes of a file in which the rows of one place begin."""
    return RAW * num_bytes // PLACES


def _places(size: int, count: int, span: int) -> list[tuple[int, int]]:
    """First byte of each place, and the one after those in which its rows begin."""
    starts = [size * part // count for part in range(count + 1)]
    return [(start, min(end, start + span)) for start, end in pairwise(starts)]


def hash_of_places(file: Path, num_files: int, num_bytes: int) -> str:
    """A hash of a file's size and of all its bytes that `draw_rows` reads of files that can be entered."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as content:
        for start, end in _places(size, _places_of_each(num_files), _span(num_bytes)):
            content.seek(start)
            digest.update(content.read(end - start + 2 * LONGEST_BLOCK))
    return digest.hexdigest()


def _parts(file: Path, count: int, columns: Columns, span: int) -> list[Iterator[Located]]:
    kind = check_file(file)
    if kind.compression is not None:
        return [read_rows(file, columns)]
    if kind.format in ("parquet", "arrow"):
        reader, num_parts = (
            (read_parquet, num_parquet_parts(file)) if kind.format == "parquet" else (read_arrow, num_arrow_parts(file))
        )
        num_parts = max(1, min(num_parts, count, PLACES_OF_COLUMNS))
        return [reader(file, columns, part, num_parts) for part in range(num_parts)]
    if can_be_entered(file):
        return [_from_place(file, kind, *place) for place in _places(file.stat().st_size, count, span)]
    return [read_rows(file, columns)]


def can_be_entered(file: Path) -> bool:
    """Whether rows can be read from any place on: in files of lines."""
    kind = check_file(file)
    if kind.compression is not None:
        return False
    return (kind.format == "json" and is_lines(file)) or (kind.format == "text" and not has_bare_returns(file))


def _from_place(file: Path, kind: Kind, start: int, end: int) -> Iterator[Located]:
    """The rows that begin between two bytes of a file of lines."""
    is_text = kind.format == "text"
    with file.open("rb") as content:
        if start:
            content.seek(start - 1)
            _skip(content, to_blank=is_text)
        place = content.tell()
        lines = read_lines(_lines_until(content, end, to_blank=is_text), file, start=place)
        if is_text:
            yield from read_blocks(lines, LONGEST_BLOCK)
        else:
            yield from (parse_line(where, line) for where, line in lines if line.strip())


def _skip(content: IO[bytes], *, to_blank: bool) -> None:
    """To the next line, or to the one after the next blank line if that is near."""
    content.readline()
    place, passed = content.tell(), 0
    while to_blank and passed < LONGEST_BLOCK and (line := content.readline()):
        passed += len(line)
        if not line.strip():
            return
    content.seek(place)


def _lines_until(content: IO[bytes], end: int, *, to_blank: bool) -> Iterator[bytes]:
    """The lines that begin before `end`; of text on to a blank line, if that is near."""
    place = content.tell()
    for line in iter(content.readline, b""):
        if place >= end and (not to_blank or not line.strip() or place > end + LONGEST_BLOCK):
            return
        place += len(line)
        yield line
