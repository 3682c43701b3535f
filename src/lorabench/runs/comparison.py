"""Two runs, adapters or models on one text: the difference, paired by document, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorabench.analysis.findings import Verdict
from lorabench.analysis.rules import SIGNIFICANCE
from lorabench.analysis.statistics import Interval, compare_pair
from lorabench.core.errors import InputError
from lorabench.core.progress import Progress
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore
from lorabench.runs.evaluation import Manner, score_texts


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    """As people called it."""
    model: str
    """What `evaluate` takes."""
    adapter: Path | None = None
    record: RunRecord | None = None
    store: RecordStore | None = None
    """Of a run, with its record."""


@dataclass(frozen=True)
class PairComparison:
    """First minus second, in bits per byte; lower is better."""

    first: str
    second: str
    text: str
    first_bits_per_byte: float
    second_bits_per_byte: float
    difference: Interval
    p_value: float

    @property
    def verdict(self) -> Verdict:
        """Whether the first is lower, higher, or neither beyond chance; not compared without an interval."""
        if self.difference.low is None:
            return Verdict.NOT_COMPARED
        if self.p_value >= SIGNIFICANCE:
            return Verdict.NO_DETECTABLE_DIFFERENCE
        return Verdict.LOWER if self.difference.estimate < 0 else Verdict.HIGHER

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"verdict": self.verdict.value}


def compare_recorded(first: Side, second: Side) -> PairComparison:
    """Two runs by what they scored on validation when they ran.

    Raises InputError where one is no run with a result, or they were scored on different documents; DiskError where a
    file is not as the run wrote it.
    """
    results = []
    for side in (first, second):
        if side.record is None or side.store is None:
            raise InputError(f"{side.name}: it is no run with scores on record; say on which text with --data")
        scores = side.record.validation
        documents = None if scores is None else side.store.documents(side.record, "validation", scores)
        if documents is None:
            raise InputError(f"{side.name}: the run is {side.record.status} and has no scores by document")
        results.append(documents)
    one, two = results
    if one.fingerprint != two.fingerprint:
        raise InputError(
            f"{first.name} and {second.name} were scored on different documents; say on which text with --data"
        )
    assert first.record is not None
    text = f"validation of {first.record.spec.dataset}"
    return _compare(first, second, text, one.nll, two.nll, one.num_bytes)


def compare_on(
    first: Side,
    second: Side,
    data: Path | str | Mapping[str, Any],
    manner: Manner,
    progress: Progress | None = None,
) -> PairComparison:
    """Score both on one text now, each by its own tokenizer, and compare. Raises as `evaluate`."""
    models = [(side.model, side.adapter) for side in (first, second)]
    one, two = (scored.documents for (scored,) in score_texts(models, [data], manner, progress))
    return _compare(first, second, str(data), one.nll, two.nll, one.num_bytes.astype(np.float64))


def _compare(first: Side, second: Side, text: str, one: Any, two: Any, num_bytes: Any) -> PairComparison:
    difference = compare_pair(one[None, :], two[None, :], num_bytes)
    scale = 1.0 / (np.log(2.0) * num_bytes.sum())
    return PairComparison(
        first.name,
        second.name,
        text,
        float(one.sum() * scale),
        float(two.sum() * scale),
        difference.interval(len(num_bytes), 1, "on these seeds only" if first.record and second.record else ""),
        float(difference.p_value()) if len(num_bytes) > 1 else 1.0,
    )
