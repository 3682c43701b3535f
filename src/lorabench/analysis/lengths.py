"""Figures by the length of documents: whether a model, or an adapter, does better on short or on long ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorabench.record.schema import Scores

if TYPE_CHECKING:
    import pandas as pd

EDGES = (256, 1024, 4096, 16_384, 65_536)
"""Bytes at which one range of lengths ends and the next begins."""


@dataclass(frozen=True)
class LengthBucket:
    """Documents of `low_bytes` up to, not including, `high_bytes` (None: no limit). `base` where it was scored too."""

    low_bytes: int
    high_bytes: int | None
    scores: Scores
    base: Scores | None

    @property
    def label(self) -> str:
        """The range in words."""
        if self.high_bytes is None:
            return f"{self.low_bytes:,} bytes and more"
        return f"{self.low_bytes:,} to {self.high_bytes - 1:,} bytes"


def by_length(table: pd.DataFrame) -> list[LengthBucket]:
    """The ranges that hold documents, shortest first. `table`: per-document results, as `RecordStore.documents`."""
    buckets = []
    for low, high in zip((0, *EDGES), (*EDGES, None), strict=True):
        part = table[(table["num_bytes"] >= low) & (table["num_bytes"] < (math.inf if high is None else high))]
        if part["num_tokens"].sum() == 0:
            continue
        base = _scores(part, "base_nll") if "base_nll" in part else None
        buckets.append(LengthBucket(low, high, _scores(part, "nll"), base))
    return buckets


def _scores(table: pd.DataFrame, column: str) -> Scores:
    return Scores(
        negative_log_likelihood=float(table[column].sum()),
        num_tokens=int(table["num_tokens"].sum()),
        num_bytes=int(table["num_bytes"].sum()),
        num_words=int(table["num_words"].sum()),
        num_documents=len(table),
    )
