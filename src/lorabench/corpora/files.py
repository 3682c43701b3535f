"""Reads the user's own text: .txt (documents between blank lines), .jsonl and .parquet (one field of each row).

Text is taken exactly as it is. Whatever cannot be read is refused with its place in the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from lorabench.core.errors import DataError, near_matches
from lorabench.corpora.documents import REPLACEMENT, Document, make_document
from lorabench.corpora.references import SUFFIXES

PIECE_CHARACTERS = 2_000
"""About the length of the pieces of a .txt file that is not divided into documents by blank lines."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_ENDS = (re.compile(r"\n"), re.compile(r"[.!?…][\"'”’)\]]*\s"), re.compile(r"[。！？]"), re.compile(r"\s"))


def read_local_documents(path: Path, text_field: str = "text") -> list[Document]:
    """The file's documents in their order, every one and exactly as it is, for scoring. Raises DataError.

    Only what UTF-8 has no bytes for, a lone surrogate in a JSON escape, becomes U+FFFD.
    """
    texts = [_LONE_SURROGATE.sub(REPLACEMENT, text) for text in read_local_texts(path, text_field)]
    if not any(text.strip() for text in texts):
        raise DataError(f"{path}: there is no text in it")
    return [make_document(text) for text in texts]


def read_local_texts(path: Path, text_field: str = "text") -> list[str]:
    """The file's texts in their order, empty ones included. Raises DataError."""
    check_local_file(path)
    readers = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    try:
        return list(readers[path.suffix.lower()](path, text_field))
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror or error}") from None


def check_local_file(path: Path) -> None:
    """Raise DataError where `path` is no file of an accepted kind, or empty."""
    try:
        if not path.exists():
            raise DataError(f"{path}: there is no such file{_near_files(path)}")
        if not path.is_file():
            raise DataError(f"{path}: it is not a file; accepted: {', '.join(SUFFIXES)}")
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path}: files of this kind are not read; accepted: {', '.join(SUFFIXES)}")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)[:200]!r}: it cannot be read: {error}") from None


def _near_files(path: Path) -> str:
    """What a message adds where the folder has files of nearly that name."""
    try:
        found = near_matches(
            path.name, [file.name for file in path.parent.iterdir() if file.suffix.lower() in SUFFIXES]
        )
    except OSError:
        return ""
    return found and f".{found}"


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


def _read_txt(path: Path, _: str) -> Iterator[str]:
    block: list[str] = []
    for line in _text_lines(path):
        if line.strip():
            block.append(line)
        elif block:
            yield "\n".join(block).removesuffix("\r")
            block = []
    if block:
        yield "\n".join(block).removesuffix("\r")


def _text_lines(path: Path) -> Iterator[str]:
    """Lines without their line feeds, decoded one by one, so that a large file is never held twice."""
    start = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}: line {number} (byte {start + error.start} of the file) is not UTF-8; save the file as "
                    "UTF-8 text"
                ) from None
            start += len(line)
            yield (text.removeprefix("\ufeff") if number == 1 else text).removesuffix("\n")


def _read_jsonl(path: Path, text_field: str) -> Iterator[str]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not content.strip():
                continue
            try:
                row = json.loads(content.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: line {number}: byte {error.start} of the line is not UTF-8") from None
            except (ValueError, RecursionError):
                raise DataError(f"{path}: line {number} is not JSON; each line should be one object") from None
            yield _field(row, text_field, f"{path}: line {number}")


def _field(row: object, text_field: str, where: str) -> str:
    if not isinstance(row, dict):
        raise DataError(f"{where} is not a JSON object with a field {text_field!r}")
    if text_field not in row:
        raise DataError(f"{where} has no field {text_field!r}; it has {_names(row)}")
    value = row[text_field]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: the field {text_field!r} holds {type(value).__name__}, not text")
    return value


def _names(names: object) -> str:
    shown = [repr(name[:40]) for name in list(names)[:12]]  # type: ignore[call-overload]
    return ", ".join(shown) or "no fields"


def _read_parquet(path: Path, text_field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if text_field not in schema.names:
                raise DataError(f"{path}: there is no column {text_field!r}; it has {_names(schema.names)}")
            kind = schema.field(text_field).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise DataError(f"{path}: the column {text_field!r} holds {kind}, not text")
            for batch in file.iter_batches(batch_size=10_000, columns=[text_field]):
                yield from (value or "" for value in batch.column(0).to_pylist())
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise DataError(f"{path}: it is not a whole Parquet file: {reason}") from None
