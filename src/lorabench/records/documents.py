"""Per-document results as they lie beside a record, taken from bytes whose hash was compared with the record's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorabench.records.schema import Scores

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float64]
_RELATIVE_TOLERANCE = 1e-6
_COUNTS = ("num_bytes", "num_tokens", "num_words")
_LENGTHS = "document_bytes"


@dataclass(frozen=True)
class DocumentResults:
    """Per-document sums of D documents, in the order of their hashes; everything but the fingerprint is [D]."""

    fingerprint: str
    """Of the documents' hashes: results with the same one can be paired."""
    num_bytes: Floats
    num_tokens: Floats
    num_words: Floats
    nll: Floats
    """Nats, summed over the document's tokens."""
    base_nll: Floats | None
    """The base's, where it was kept."""
    document_bytes: Floats | None = None
    """Of whole documents, where only pieces of some were scored; None in results of earlier versions."""

    @property
    def lengths(self) -> Floats:
        """Bytes of whole documents."""
        return self.num_bytes if self.document_bytes is None else self.document_bytes

    @property
    def effective(self) -> float:
        """`effective_number` of what was scored."""
        return effective_number(self.num_bytes)


def effective_number(num_bytes: npt.NDArray[Any]) -> float:
    """(sum b)² / sum b² over bytes b [D]: how many documents of one length weigh as much as these."""
    sizes = num_bytes.astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def parse_documents(content: bytes, expected: Scores) -> DocumentResults:
    """The results in a Parquet file. Raises ValueError, saying why, unless they are whole and add up to `expected`."""
    table = _read_table(content, expected.num_documents)
    if len(set(table.column_names)) != len(table.column_names):
        raise ValueError("a column is there twice")
    hashes = _hashes(table)
    order = np.array(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=np.intp)
    present = [name for name in (*_COUNTS, _LENGTHS, "nll", "base_nll") if name in table.column_names]
    columns = {name: _column(table, name)[order] for name in present}
    missing = [name for name in (*_COUNTS, "nll") if name not in columns]
    if missing:
        raise ValueError(f"the column {missing[0]} is missing")
    if (columns["num_bytes"] < 1).any() or min(columns[name].min() for name in columns) < 0:
        raise ValueError("a document has a negative figure or no bytes")
    total = expected.negative_log_likelihood
    differing = [name for name in _COUNTS if columns[name].sum() != getattr(expected, name)]
    differing += ["nll"] if abs(columns["nll"].sum() - total) > _RELATIVE_TOLERANCE * max(1.0, abs(total)) else []
    if differing:
        raise ValueError(f"the column {differing[0]} does not add up to the record's sum")
    if _LENGTHS in columns and (columns[_LENGTHS] < columns["num_bytes"]).any():
        raise ValueError("more bytes of a document were scored than it has")
    fingerprint = hashlib.sha256("\n".join(sorted(hashes)).encode("utf-8", "surrogatepass")).hexdigest()
    base_nll, lengths = columns.pop("base_nll", None), columns.pop(_LENGTHS, None)
    return DocumentResults(fingerprint, base_nll=base_nll, document_bytes=lengths, **columns)


def _read_table(content: bytes, num_documents: int) -> pa.Table:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(pa.BufferReader(content))
        if file.metadata.num_rows == num_documents:
            return file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"they are not Parquet: {' '.join(str(error).split())[:150]}") from None
    raise ValueError(f"they are of {file.metadata.num_rows} documents, and the record of {num_documents}")


def _hashes(table: pa.Table) -> list[str]:
    import pyarrow as pa

    if "document_hash" not in table.column_names:
        raise ValueError("the column document_hash is missing")
    column = table.column("document_hash")
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) or column.null_count:
        raise ValueError("the column document_hash holds something other than text")
    hashes: list[str] = column.to_pylist()
    if len(set(hashes)) != len(hashes):
        raise ValueError("a document is there twice")
    return hashes


def _column(table: pa.Table, name: str) -> Floats:
    import pyarrow as pa

    column = table.column(name)
    is_whole = name in (*_COUNTS, _LENGTHS)
    is_number = pa.types.is_integer if is_whole else pa.types.is_floating
    if not is_number(column.type) or column.null_count:
        raise ValueError(f"the column {name} holds something other than {'whole ' * is_whole}numbers")
    values: Floats = column.to_numpy().astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"the column {name} holds something other than finite numbers")
    return values
