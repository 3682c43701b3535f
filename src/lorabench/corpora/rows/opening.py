"""Opens files as bytes or as lines of text, uncompressed on the way. Errors name the file and the place in it."""

from __future__ import annotations

import codecs
import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from lorabench.core.errors import DataError
from lorabench.corpora.rows.kinds import kind_of

_OTHER_ENCODINGS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The uncompressed content from its beginning. Raises DataError, also while it is read within the context."""
    kind = kind_of(path)
    compression = kind.compression if kind else None
    try:
        if compression == "gzip":
            with gzip.open(path) as file:
                yield cast("IO[bytes]", file)
        elif compression == "zstd":
            with _open_zstd(path) as stream:
                yield stream
        else:
            with path.open("rb") as plain:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: it is no whole .gz file: {_brief(error)}") from None
    except OSError as error:
        if compression == "zstd" and error.errno is None:
            raise DataError(f"{path}: it is no whole .zst file: {_brief(error)}") from None
        raise DataError(f"{path}: it cannot be read: {error.strerror or error}") from None


@contextmanager
def _open_zstd(path: Path) -> Iterator[IO[bytes]]:
    import pyarrow as pa

    with path.open("rb") as compressed, pa.CompressedInputStream(pa.PythonFile(compressed), "zstd") as stream:
        yield cast("IO[bytes]", io.BufferedReader(cast("io.RawIOBase", stream)))


@contextmanager
def open_seekable(path: Path) -> Iterator[IO[bytes]]:
    """The uncompressed content for readers that go back and forth; of a compressed file a temporary copy."""
    with open_bytes(path) as content:
        kind = kind_of(path)
        if kind is None or kind.compression is None:
            yield content
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(content, copy, 1 << 20)
            copy.seek(0)
            yield copy


def read_lines(content: Iterable[bytes], path: Path, *, start: int = 0) -> Iterator[tuple[str, str]]:
    """Lines with their line feeds, decoded one by one, and where each stands.

    `start`: the byte of the file that they begin at, where that is not its beginning.
    """
    place = start
    for number, line in enumerate(content, start=1):
        if number == 1 and start == 0:
            refuse_encoding(line, path)
        where = f"{path}: line {number}" if start == 0 else f"{path}: the line at byte {place}"
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where} (byte {place + error.start} of the file) is not UTF-8; save the file as UTF-8 text"
            ) from None
        place += len(line)
        yield where, text.removeprefix("\ufeff") if number == 1 and start == 0 else text


def refuse_encoding(beginning: bytes, path: Path) -> None:
    """Raise DataError where a file begins with the mark of another encoding."""
    for name, marks in _OTHER_ENCODINGS.items():
        if beginning.startswith(marks):
            raise DataError(f"{path}: it is {name}, not UTF-8; save the file as UTF-8 text")


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:150]
