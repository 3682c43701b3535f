"""Reads the rows of one file of the user's own, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from lorabench.core.errors import DataError, near_matches
from lorabench.corpora.rows.columns import Columns, read_arrow, read_parquet
from lorabench.corpora.rows.jsonrows import read_json
from lorabench.corpora.rows.kinds import ACCEPTED, Format, Kind, Located, kind_of
from lorabench.corpora.rows.tables import read_csv, read_tsv
from lorabench.corpora.rows.text import read_text

READERS: dict[Format, Callable[[Path, Columns], Iterator[Located]]] = {
    "text": lambda path, _: read_text(path),
    "json": lambda path, _: read_json(path),
    "csv": lambda path, _: read_csv(path),
    "tsv": lambda path, _: read_tsv(path),
    "parquet": read_parquet,
    "arrow": read_arrow,
}


def read_rows(path: Path, columns: Columns = None) -> Iterator[Located]:
    """Where each row stands, and the row: a mapping of fields, or a string where the file has no fields.

    `columns`: those that are wanted, where a format can leave others unread. Raises DataError.
    """
    return READERS[check_file(path).format](path, columns)


def check_file(path: Path) -> Kind:
    """What the file holds. Raises DataError where `path` is no file of an accepted kind, or empty."""
    try:
        if not path.exists():
            raise DataError(f"{path}: there is no such file{_near_files(path)}")
        if not path.is_file():
            raise DataError(f"{path}: it is not a file; accepted: {ACCEPTED}")
        kind = kind_of(path)
        if kind is None:
            raise DataError(f"{path}: files of this kind are not read; accepted: {ACCEPTED}")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)[:200]!r}: it cannot be read: {error}") from None
    return kind


def _near_files(path: Path) -> str:
    """What a message adds where the folder has files of nearly that name."""
    try:
        found = near_matches(path.name, [file.name for file in path.parent.iterdir() if kind_of(file)])
    except OSError:
        return ""
    return found and f".{found}"
