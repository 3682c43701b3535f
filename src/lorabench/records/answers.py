"""Answers as they lie beside a record, taken from bytes whose hash was compared with the record's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lorabench.records.documents import Floats
from lorabench.records.measured import Answers

if TYPE_CHECKING:
    import pyarrow as pa

_TOLERANCE = 1e-9
_TEXTS = ("document_hash", "prompt", "reference", "base_answer", "answer")


@dataclass(frozen=True)
class AnswerResults:
    """Both models' answers to Q questions, in the order of the documents' hashes."""

    fingerprint: str
    """Of the documents' hashes: results with the same one can be paired."""
    texts: tuple[Mapping[str, str], ...]
    """[Q]: document_hash, prompt, reference, base_answer, answer."""
    scores: Mapping[str, Floats]
    """By metric [Q], of the adapter."""
    base_scores: Mapping[str, Floats]


def parse_answers(content: bytes, expected: Answers) -> AnswerResults:
    """The results in a Parquet file. Raises ValueError unless they are whole and have the means of `expected`."""
    table = _read_table(content)
    if table.num_rows != expected.num_examples:
        raise ValueError(f"they are {table.num_rows} answers, and the record's {expected.num_examples}")
    wanted = [*_TEXTS, *(f"{whose}score:{name}" for name in expected.metrics for whose in ("", "base_"))]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise ValueError(f"the column {missing[0]} is missing")
    rows = table.select(_TEXTS).to_pylist()
    if any(not isinstance(value, str) for row in rows for value in row.values()):
        raise ValueError("an answer is something other than text")
    hashes = [row["document_hash"] for row in rows]
    if len(set(hashes)) != len(hashes):
        raise ValueError("a document is there twice")
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    scores: dict[str, Floats] = {}
    base_scores: dict[str, Floats] = {}
    for name, figure in expected.metrics.items():
        for whose, into, mean in (("", scores, figure.adapted), ("base_", base_scores, figure.base)):
            values = table.column(f"{whose}score:{name}").to_numpy()
            if values.dtype != np.float64 or not np.isfinite(values).all():
                raise ValueError(f"the column {whose}score:{name} holds something other than finite numbers")
            if abs(float(values.mean()) - mean) > _TOLERANCE * max(1.0, abs(mean)):
                raise ValueError(f"the column {whose}score:{name} does not have the record's mean")
            into[name] = values[order]
    fingerprint = hashlib.sha256("\n".join(sorted(hashes)).encode("utf-8", "surrogatepass")).hexdigest()
    return AnswerResults(fingerprint, tuple(rows[place] for place in order), scores, base_scores)


def _read_table(content: bytes) -> pa.Table:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"they are not Parquet: {' '.join(str(error).split())[:150]}") from None
