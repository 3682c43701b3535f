"""Quarters of a corpus's documents by their length: on which of them a configuration does better than its base."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lorabench.analysis.candidates import CorpusGroup
from lorabench.analysis.facts import LengthBucket
from lorabench.analysis.pairing import Measured
from lorabench.records.schema import Scores

_NUM_BUCKETS = 4
_LN2 = math.log(2.0)


def length_buckets(groups: Sequence[CorpusGroup]) -> tuple[LengthBucket, ...]:
    """Quarters of the documents by length, for every model's best candidate of a corpus."""
    found: list[LengthBucket] = []
    for group in groups:
        for item in group.best_of_each_model():
            if item.nll is not None and item.num_bytes is not None:
                found += _buckets(group.label, item)
    return tuple(found)


def _buckets(corpus: str, item: Measured) -> list[LengthBucket]:
    assert item.nll is not None
    assert item.num_bytes is not None
    documents = item.runs[0].documents
    assert documents is not None
    order = np.argsort(documents.lengths, kind="stable")
    parts = [part for part in np.array_split(order, _NUM_BUCKETS) if len(part)]
    nll = item.nll.mean(axis=0)
    base = None if item.base_nll is None else item.base_nll.mean(axis=0)
    buckets = []
    for part in parts:
        num_bytes = float(item.num_bytes[part].sum())
        scores = Scores(
            negative_log_likelihood=float(nll[part].sum()),
            num_tokens=int(max(1, documents.num_tokens[part].sum())),
            num_bytes=int(num_bytes),
            num_words=1,
            num_documents=len(part),
        )
        buckets.append(
            LengthBucket(
                corpus=corpus,
                model=item.shown.model,
                candidate=item.key,
                low_bytes=int(documents.lengths[part].min()),
                high_bytes=int(documents.lengths[part].max()),
                num_documents=len(part),
                bits_per_byte=scores.bits_per_byte,
                base_bits_per_byte=None if base is None else float(base[part].sum()) / (_LN2 * num_bytes),
                perplexity=scores.perplexity,
            )
        )
    return buckets
