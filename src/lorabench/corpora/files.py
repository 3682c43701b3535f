"""Reads the user's own text: the rows of files (`lorabench.corpora.rows`), and of each its text.

Text is taken exactly as it is. Whatever cannot be read is refused with its place in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorabench.core.errors import DataError
from lorabench.corpora.conversations import Format, Row, find_format, has_text, read_turns
from lorabench.corpora.documents import REPLACEMENT, Document, make_conversation, make_document
from lorabench.corpora.fields import DEFAULT_FIELD, TextFields, columns_of, find_field, read_text
from lorabench.corpora.rows.gather import gather
from lorabench.corpora.rows.kinds import Located
from lorabench.corpora.rows.read import check_file, read_rows

PIECE_CHARACTERS = 2_000
"""About the length of the pieces of a .txt file that is not divided into documents by blank lines."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_ENDS = (re.compile(r"\n"), re.compile(r"[.!?…][\"'”’)\]]*\s"), re.compile(r"[。！？]"), re.compile(r"\s"))


def read_local_documents(
    path: Path, text_field: TextFields = DEFAULT_FIELD, format: Format | None = None
) -> list[Document]:
    """The documents of a path's files in their order, every one and exactly as it is, for scoring. Raises DataError.

    Only what UTF-8 has no bytes for, a lone surrogate in a JSON escape, becomes U+FFFD; and conversations without any
    answer are left out.
    """
    return read_with_format(path, text_field, format)[0]


def read_with_format(
    path: Path, text_field: TextFields = DEFAULT_FIELD, format: Format | None = None
) -> tuple[list[Document], Format]:
    """As `read_local_documents`, with the format that was given or found."""
    files = gather(path)
    reading = find_reading(files, text_field, format)
    rows = _read(files, reading)
    if not any(map(has_text, rows)):
        raise DataError(f"{path}: there is no text in it")
    documents = [
        make_document(_encodable(row))
        if isinstance(row, str)
        else make_conversation([replace(turn, content=_encodable(turn.content)) for turn in row])
        for row in rows
        if isinstance(row, str) or has_text(row)
    ]
    return documents, reading.format


def _encodable(text: str) -> str:
    return _LONE_SURROGATE.sub(REPLACEMENT, text)


def read_local_rows(path: Path, text_field: TextFields = DEFAULT_FIELD, format: Format | None = None) -> list[Row]:
    """The texts or conversations of a path's files in their order, empty ones included. Raises DataError."""
    files = gather(path)
    return _read(files, find_reading(files, text_field, format))


def _read(files: Sequence[Path], reading: Reading) -> list[Row]:
    return [row for file in files for row in reading.rows(read_rows(file, reading.columns))]


@dataclass(frozen=True)
class Reading:
    """What of each row is read: a text, or a conversation."""

    format: Format
    fields: TextFields
    """Of a text."""

    @property
    def columns(self) -> list[str] | None:
        """Those that hold it; None: all."""
        return columns_of(self.fields) if self.format == "text" else None

    def rows(self, rows: Iterable[Located]) -> Iterator[Row]:
        """What is read of each. Raises DataError, naming the row."""
        if self.format == "text":
            return texts_of(rows, self.fields)
        return (_turns(row, self.format, where) for where, row in rows)


def find_reading(files: Sequence[Path], asked: TextFields, format: Format | None = None) -> Reading:
    """The format given, else that of the first row's fields where no other text field was asked for.

    Raises DataError where it is not clear what is read.
    """
    is_open = asked == DEFAULT_FIELD and format in (None, "text")
    return reading_of(_first_row(files) if is_open else None, asked, format)


def reading_of(first: Located | None, asked: TextFields, format: Format | None = None) -> Reading:
    """As `find_reading`, of rows whose first one is `first`; None: there is none, or it is not needed."""
    if format is None and asked == DEFAULT_FIELD and first is not None and isinstance(first[1], Mapping):
        format = find_format(first[1])
    if format is not None and format != "text":
        return Reading(format, asked)
    found = find_field(first[1], first[0]) if asked == DEFAULT_FIELD and first is not None else None
    return Reading("text", found or asked)


def _turns(row: object, format: Format, where: str) -> Row:
    if not isinstance(row, Mapping):
        raise DataError(f"{where} has no fields, which rows of {format} have")
    try:
        return read_turns(row, format)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _first_row(files: Sequence[Path]) -> Located | None:
    """Of the files that have rows."""
    tables = (file for file in files if check_file(file).format != "text")
    return next((located for file in tables for located in read_rows(file)), None)


def texts_of(rows: Iterable[Located], fields: TextFields) -> Iterator[str]:
    """The text of each row. Raises DataError, naming the row."""
    return (read_text(row, fields, where) for where, row in rows)


def cut_into_pieces(texts: list[str]) -> list[str]:
    """Cut long texts into pieces of about `PIECE_CHARACTERS` (down to a tenth of that, for ten pieces in all).

    A cut is made after a line, else after a sentence, else after a word, else anywhere. No character is lost.
    """
    total = sum(map(len, texts))
    length = min(PIECE_CHARACTERS, max(PIECE_CHARACTERS // 10, total // 20))
    return [piece for text in texts for piece in _pieces(text, length)]


def _pieces(text: str, length: int) -> Iterator[str]:
    start = 0
    while len(text) - start > 1.5 * length:
        window = text[start + length // 2 : start + 3 * length // 2]
        ends = next((found for pattern in _ENDS if (found := [m.end() for m in pattern.finditer(window)])), [length])
        end = start + length // 2 + min(ends, key=lambda place: abs(place - length // 2))
        yield text[start:end]
        start = end
    yield text[start:]
