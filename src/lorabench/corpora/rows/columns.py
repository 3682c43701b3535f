"""Rows of .parquet and .arrow files, a batch at a time, from their beginning or from one of their parts on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lorabench.core.errors import DataError
from lorabench.corpora.rows.kinds import Located
from lorabench.corpora.rows.opening import open_seekable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 1_000
_BUFFER_BYTES = 1 << 18
Columns = Sequence[str] | None
"""Those that are read; None: all."""


def read_parquet(path: Path, columns: Columns = None, part: int = 0, num_parts: int = 1) -> Iterator[Located]:
    """Each row; of several parts, which are row groups next to one another, those of one. Raises DataError."""
    with _explained(path, "Parquet"), open_seekable(path) as content, _parquet(content) as file:
        first, end = _share(file.num_row_groups, part, num_parts)
        start = sum(file.metadata.row_group(group).num_rows for group in range(first))
        batches = file.iter_batches(BATCH_ROWS, list(range(first, end)), _known(columns, file.schema_arrow), False)
        yield from _numbered(batches, start, str(path))


def read_arrow(path: Path, columns: Columns = None, part: int = 0, num_parts: int = 1) -> Iterator[Located]:
    """Each row of an IPC file (.feather is another name for it) or stream; a stream is one part. Raises DataError."""
    import pyarrow as pa

    with _explained(path, "Arrow"), open_seekable(path) as content:
        reader = _arrow(content)
        known = _known(columns, reader.schema)
        batches: Iterable[pa.RecordBatch] = reader
        where = str(path)
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            first, end = _share(reader.num_record_batches, part, num_parts)
            batches = (reader.get_batch(index) for index in range(first, end))
            where = f"{path}: from batch {first + 1} on" if first else where
        yield from _numbered((batch.select(known) for batch in batches), 0, where)


def num_parquet_parts(path: Path) -> int:
    """Row groups. Raises DataError."""
    with _explained(path, "Parquet"), open_seekable(path) as content, _parquet(content) as file:
        return int(file.num_row_groups)


def num_arrow_parts(path: Path) -> int:
    """Batches of a file; 1 of a stream. Raises DataError."""
    with _explained(path, "Arrow"), open_seekable(path) as content:
        return int(getattr(_arrow(content), "num_record_batches", 1))


def _parquet(content: IO[bytes]) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(content, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def _arrow(content: IO[bytes]) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_file(content)
    except pa.ArrowInvalid:
        content.seek(0)
        return pa.ipc.open_stream(content)


def _share(num_items: int, part: int, num_parts: int) -> tuple[int, int]:
    """The first item of a part, and the one after its last."""
    return num_items * part // num_parts, num_items * (part + 1) // num_parts


def _known(columns: Columns, schema: pa.Schema) -> list[str]:
    """Those of the columns that there are; all where none is."""
    return [name for name in columns or () if name in schema.names] or list(schema.names)


def _numbered(batches: Iterable[pa.RecordBatch], start: int, where: str) -> Iterator[Located]:
    number = start
    for batch in batches:
        for first in range(0, batch.num_rows, BATCH_ROWS):
            for row in batch.slice(first, BATCH_ROWS).to_pylist():
                number += 1
                yield f"{where}: row {number}", row


@contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it is not a whole {kind} file: {' '.join(str(error).split())[:150]}") from None
