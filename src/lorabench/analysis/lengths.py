"""Figures by the length of documents: whether a model, or an adapter, does better on short or on long ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorabench.records.documents import DocumentResults, Floats
from lorabench.records.schema import Scores

EDGES = (256, 1024, 4096, 16_384, 65_536)
"""Bytes at which one range of lengths ends and the next begins."""


@dataclass(frozen=True)
class LengthRange:
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


def by_length(documents: DocumentResults) -> list[LengthRange]:
    """The ranges that hold documents with tokens, shortest first."""
    buckets = []
    for low, high in zip((0, *EDGES), (*EDGES, None), strict=True):
        part = (documents.lengths >= low) & (documents.lengths < (math.inf if high is None else high))
        if documents.num_tokens[part].sum() == 0:
            continue
        base = None if documents.base_nll is None else _scores(documents, documents.base_nll, part)
        buckets.append(LengthRange(low, high, _scores(documents, documents.nll, part), base))
    return buckets


def _scores(documents: DocumentResults, nll: Floats, part: npt.NDArray[np.bool_]) -> Scores:
    return Scores(
        negative_log_likelihood=float(nll[part].sum()),
        num_tokens=int(documents.num_tokens[part].sum()),
        num_bytes=int(documents.num_bytes[part].sum()),
        num_words=int(documents.num_words[part].sum()),
        num_documents=int(part.sum()),
    )
