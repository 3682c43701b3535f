"""Reads the user's own text: the rows of files (`lorabench.corpora.rows`), and of each its text.

Text is taken exactly as it is. Whatever cannot be read is refused with its place in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lorabench.core.errors import DataError
from lorabench.corpora.documents import REPLACEMENT, Document, make_document
from lorabench.corpora.fields import DEFAULT_FIELD, TextFields, columns_of, find_field, read_text
from lorabench.corpora.rows.gather import gather
from lorabench.corpora.rows.kinds import Located
from lorabench.corpora.rows.read import read_rows

PIECE_CHARACTERS = 2_000
"""About the length of the pieces of a .txt file that is not divided into documents by blank lines."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_ENDS = (re.compile(r"\n"), re.compile(r"[.!?…][\"'”’)\]]*\s"), re.compile(r"[。！？]"), re.compile(r"\s"))


def read_local_documents(path: Path, text_field: TextFields = DEFAULT_FIELD) -> list[Document]:
    """The documents of a path's files in their order, every one and exactly as it is, for scoring. Raises DataError.

    Only what UTF-8 has no bytes for, a lone surrogate in a JSON escape, becomes U+FFFD.
    """
    texts = [_LONE_SURROGATE.sub(REPLACEMENT, text) for text in read_local_texts(path, text_field)]
    if not any(text.strip() for text in texts):
        raise DataError(f"{path}: there is no text in it")
    return [make_document(text) for text in texts]


def read_local_texts(path: Path, text_field: TextFields = DEFAULT_FIELD) -> list[str]:
    """The texts of a path's files in their order, empty ones included. Raises DataError."""
    files = gather(path)
    fields = find_fields(files, text_field)
    return [text for file in files for text in texts_of(read_rows(file, columns_of(fields)), fields)]


def find_fields(files: Sequence[Path], asked: TextFields) -> TextFields:
    """The fields that hold the text: those asked for, unless it is the default and the first row lacks it.

    Raises DataError where it is not clear which.
    """
    if asked != DEFAULT_FIELD:
        return asked
    for file in files:
        for where, row in read_rows(file):
            return find_field(row, where) or asked
    return asked


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
