"""Rows of .csv and .tsv files: the first line names the columns."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from lorabench.core.errors import DataError
from lorabench.corpora.rows.kinds import Located
from lorabench.corpora.rows.opening import open_bytes, read_lines

MAX_CELL_CHARACTERS = 256_000_000
_OTHER_DELIMITERS = (";", "\t", "|")


def read_csv(path: Path) -> Iterator[Located]:
    """Each row, its cells as they are written. A header without commas may have semicolons, tabs or bars.

    Raises DataError.
    """
    return _read_table(path, _delimiter_of)


def read_tsv(path: Path) -> Iterator[Located]:
    """Each row. Raises DataError."""
    return _read_table(path, lambda header: "\t")


def _read_table(path: Path, delimiter_of: Callable[[str], str]) -> Iterator[Located]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with open_bytes(path) as content:
        lines = (line for _, line in read_lines(content, path))
        header = next((line for line in lines if line.strip()), "")
        rows = csv.reader(itertools.chain([header], lines), delimiter=delimiter_of(header), strict=True)
        try:
            names = next(rows, [])
            _check_header(names, path)
            began = rows.line_num + 1
            for cells in rows:
                where = f"{path}: line {began}"
                began = rows.line_num + 1
                if len(cells) > len(names):
                    raise DataError(
                        f"{where} has {len(cells)} cells, and the first line names {len(names)} columns; put quotes "
                        "around cells with the delimiter in them"
                    )
                if cells:
                    yield where, dict(itertools.zip_longest(names, cells))
        except csv.Error as error:
            raise DataError(f"{path}: line {rows.line_num} cannot be read as a table: {error}") from None


def _delimiter_of(header: str) -> str:
    return next((mark for mark in _OTHER_DELIMITERS if "," not in header and mark in header), ",")


def _check_header(names: list[str], path: Path) -> None:
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise DataError(f"{path}: the first line names the column {twice[:40]!r} twice; each needs a name of its own")
