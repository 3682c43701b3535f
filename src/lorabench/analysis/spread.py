"""How much paired differences vary on a corpus, and so which are detected: measured in runs, or assumed for plans."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from pydantic import TypeAdapter, ValidationError

from lorabench.analysis.detectable import Spread
from lorabench.core.formatting import number
from lorabench.core.storage import recall, remember

SPREAD_NAME = "spread.json"
"""In the results folder; rebuilt with the report."""
ASSUMED_DOCUMENTS = 0.01
"""Bits² per byte ** 1.5, between two configurations of one model: the middle of recorded runs of four models on the
sample pack, which range from 0.0005 to 0.05 (a difference that is detected goes with the root of it)."""
ASSUMED_MODELS = 0.3
"""Likewise between two models: 0.02 to 9."""
ASSUMED_SEEDS = ((3e-4, 0.0007), (3e-3, 0.0075))
"""Learning rate, and standard deviation over seeds in bits per byte, as measured on the medical corpus. What a seed
does to both of a pair cancels, so that their difference spreads about as much as one of them."""


@dataclass(frozen=True)
class MeasuredSpread:
    """Of one corpus. Variance per byte ** 1.5 from documents; over seeds in (bits per byte)² by learning rate."""

    configurations: float | None
    """Between configurations of one model, the median of pairs; None where there was no pair."""
    models: float | None
    """Between models."""
    seeds: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Detectable:
    """The true differences that the runs on a corpus tell apart 80 times in a hundred, in bits per byte."""

    pair: float
    """Between two configurations: the lowest and another that may be the best, the median of such pairs."""
    best: float
    """By which the best of all must be below each of the others to be named alone."""
    document_share: float
    """Of the variance of their difference; the rest is from seeds."""
    spread: MeasuredSpread
    """For plans."""

    @property
    def claim(self) -> str:
        """In words."""
        best = f", and name the best alone where it leads by {number(self.best, 2)}" if self.best > self.pair else ""
        return f"80 times in a hundred, these runs detect a true difference of {number(self.pair, 2)}{best}"


Spreads = dict[tuple[str, str], MeasuredSpread]
"""By name and revision of a corpus."""


def write_spreads(path: Path, spreads: Spreads) -> None:
    """Keep what was measured."""
    remember(path, [[name, revision, asdict(spread)] for (name, revision), spread in spreads.items()])


def read_spreads(path: Path) -> Spreads:
    """What was kept; nothing where there is no such file, or a damaged one."""
    try:
        kept = TypeAdapter(list[tuple[str, str, MeasuredSpread]]).validate_python(recall(path) or [])
    except ValidationError:
        return {}
    return {(name, revision): spread for name, revision, spread in kept}


def spread_between(models: bool, rates: Sequence[float], measured: MeasuredSpread | None) -> tuple[Spread, bool]:
    """Of two configurations of one model, or of two models; and whether that of documents was measured."""
    kept = None if measured is None else measured.models if models else measured.configurations
    known = {} if measured is None else measured.seeds
    seeds = fmean(known.get(rate, assumed_seed_deviation(rate) ** 2) for rate in rates)
    return Spread((ASSUMED_MODELS if models else ASSUMED_DOCUMENTS) if kept is None else kept, seeds), kept is not None


def assumed_seed_deviation(rate: float) -> float:
    """Of the difference of two runs, in bits per byte: a power of the learning rate between two measured ones."""
    (low, at_low), (high, at_high) = ASSUMED_SEEDS
    power = math.log(at_high / at_low) / math.log(high / low)
    return at_low * math.exp(power * math.log(rate / low))
