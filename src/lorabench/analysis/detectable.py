"""Which difference a design detects: how far apart two configurations must be to be told apart 80 times in a hundred.

The same variances, degrees of freedom and half-widths as in `analysis.statistics`, of one difference. Written without
scipy, whose import takes longer than the rest of a plan; tests hold the two together.

Lengths and budgets are bytes of text, differences bits per byte.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from lorabench.analysis.rules import LENGTH_EXPONENT, SIGNIFICANCE, document_freedom, own_share
from lorabench.corpora.drawing import piece_bytes

POWER = 0.8
NEGLIGIBLE = 0.002
"""Bits per byte: what is nearer to each other than this is not worth telling apart."""
PRACTICAL = 0.005
"""Bits per byte: a choice that costs at most this does not matter."""
MOST_SEEDS = 20
"""That are suggested."""
TYPICAL_LENGTH = 2500.0
"""Of documents, in bytes, where nothing is known of a corpus."""
TYPICAL_LOG_DEVIATION = 1.0
"""Of their lognormal lengths: 0.1 to 1.3 on the sample pack."""
_MOST_LENGTHS = 1000
"""That are assumed."""
_ALWAYS_NORMAL = 2000.0
_NORMAL = NormalDist()
_NORMAL_POINTS = (
    (0.0, 8 / 15),
    (-1.355626, 0.222076),
    (1.355626, 0.222076),
    (-2.856970, 0.011257),
    (2.856970, 0.011257),
)
"""Places and weights of Gauss and Hermite for the mean over a standard normal."""


@dataclass(frozen=True)
class Spread:
    """How much the difference of two configurations varies."""

    documents: float
    """Variance of a document's difference, in bits², per byte ** 1.5."""
    seeds: float
    """Variance over seeds of the difference of two runs, (bits per byte)²."""


@dataclass(frozen=True)
class Errors:
    """Of one estimated difference: variance from documents and from seeds, each with its degrees of freedom."""

    document_variance: float
    document_freedom: float
    seed_variance: float = 0.0
    seed_freedom: float = 1.0

    @property
    def variance(self) -> float:
        """All of it."""
        return self.document_variance + self.seed_variance

    @property
    def document_share(self) -> float:
        """Of the whole variance."""
        return self.document_variance / self.variance if self.variance > 0 else 1.0


@dataclass(frozen=True)
class Scored:
    """Bytes scored of documents, each of which stands for `scale` of them."""

    lengths: tuple[float, ...]
    scale: float

    @property
    def num_documents(self) -> int:
        """About."""
        return max(1, round(len(self.lengths) * self.scale))

    @property
    def num_effective(self) -> float:
        """Documents of one length that would tell as much."""
        return self.scale * sum(self.lengths) ** 2 / sum(length**2 for length in self.lengths)


@dataclass(frozen=True)
class Split:
    """Validation text of a corpus."""

    lengths: tuple[float, ...]
    """Bytes of its documents, or of some of them, evenly chosen."""
    num_documents: int
    """Of all of it."""

    @property
    def num_bytes(self) -> float:
        """Of all of it."""
        return sum(self.lengths) * self.scale

    @property
    def scale(self) -> float:
        """Documents that each length stands for."""
        return self.num_documents / len(self.lengths)

    def scored(self, budget: float) -> Scored:
        """What a budget pays for, where pieces are drawn evenly over all of the text."""
        every = self.num_bytes / budget
        if every <= 1:
            return Scored(self.lengths, self.scale)
        piece = piece_bytes(round(budget))
        counts = [max(1, math.ceil(length / piece)) for length in self.lengths]
        if every < max(counts):  # several pieces of a document
            ends = list(itertools.accumulate(counts))
            taken = [
                math.ceil(end / every - 0.5) - math.ceil((end - count) / every - 0.5)
                for end, count in zip(ends, counts, strict=True)
            ]
            shares = zip(self.lengths, taken, counts, strict=True)
            return Scored(tuple(length * some / count for length, some, count in shares if some), self.scale)
        pieces = [length / count for length, count in zip(self.lengths, counts, strict=True) for _ in range(count)]
        num_drawn = max(1, math.floor(len(pieces) * self.scale / every))
        kept = min(num_drawn, _MOST_LENGTHS)
        return Scored(tuple(pieces[int((place + 0.5) * len(pieces) / kept)] for place in range(kept)), num_drawn / kept)

    def errors(self, budget: float, spread: Spread, num_seeds: int, freedom_per_seed: float = 1.0) -> Errors:
        """What a difference would have on so much text, with so many seeds."""
        unit, freedom = _unit_variance(self, budget)
        seeds = spread.seeds / num_seeds if num_seeds > 1 else 0.0
        return Errors(spread.documents * unit, freedom, seeds, max(1.0, (num_seeds - 1) * freedom_per_seed))


@lru_cache(maxsize=200)
def _unit_variance(split: Split, budget: float) -> tuple[float, float]:
    """From documents whose spread is 1, and its degrees of freedom."""
    scored = split.scored(budget)
    variance = sum(length**LENGTH_EXPONENT for length in scored.lengths) / sum(scored.lengths) ** 2
    return variance / scored.scale, document_freedom(np.array(scored.lengths)) * scored.scale


def split_of(num_bytes: float, num_documents: int | None = None, lengths: Sequence[float] = ()) -> Split:
    """A split as far as it is known: the rest is assumed, lengths lognormal."""
    if lengths:
        return Split(tuple(lengths), num_documents or len(lengths))
    count = num_documents or max(1, round(num_bytes / TYPICAL_LENGTH))
    kept = min(count, _MOST_LENGTHS)
    shape = [math.exp(TYPICAL_LOG_DEVIATION * _NORMAL.inv_cdf((place + 0.5) / kept)) for place in range(kept)]
    factor = num_bytes * kept / count / sum(shape)
    return Split(tuple(factor * value for value in shape), count)


def freedom_per_seed(num_alike: int, num_seeds: int) -> float:
    """Degrees of freedom of the spread over seeds, for each seed after the first, where so many are pooled.

    As in `analysis.statistics`, a pair's own spread counts beside the pool.
    """
    share = own_share(num_seeds)
    return 1.0 / (share**2 + (1.0 - share**2) / max(1, num_alike - 1))


def power(errors: Errors, difference: float, factor: float = 1.0) -> float:
    """How often a true difference of this size is detected, at the 5 % level after multiplying p by `factor`."""
    return _power(_half_widths(errors, factor), errors, difference)


@lru_cache(maxsize=1000)
def detectable(errors: Errors, num_candidates: int = 2) -> float | None:
    """The difference that is detected 80 times in a hundred; None where nothing can be, with one document.

    Among more than two candidates: by how much the best must be below all others to be named alone so often.
    """
    if not math.isfinite(errors.document_freedom):
        return None
    halves = _half_widths(errors, 1.0)
    low, high = 0.0, math.sqrt(errors.variance)
    while _power_alone(halves, errors, high, num_candidates) < POWER:
        low, high = high, 2.0 * high
    for _ in range(10):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _power_alone(halves, errors, middle, num_candidates) < POWER else (low, middle)
    return high


def _power_alone(halves: Sequence[tuple[float, float]], errors: Errors, lead: float, num_candidates: int) -> float:
    """How often the best is below all others by more than chance allows.

    Those others leave the set that may hold the best in steps, the last of them at the level of a single comparison.
    Their differences to the best share its own error, which is half of each variance.
    """
    if num_candidates <= 2:
        return _power(halves, errors, lead)
    deviation = math.sqrt(errors.variance / 2.0)
    if deviation == 0:
        return float(lead > 0)
    alone = 0.0
    for own, weight in _NORMAL_POINTS:
        below = (
            sum(share * math.erfc(((half - lead) / deviation + own) / math.sqrt(2.0)) for share, half in halves) / 2.0
        )
        alone += weight * math.pow(below, num_candidates - 1)
    return alone


@dataclass(frozen=True)
class Reach:
    """The least that would detect a difference 80 times in a hundred."""

    difference: float
    is_reached: bool
    num_bytes: int | None
    """Of validation text, with the seeds there are; None where even all of the corpus's is too little."""
    num_seeds: int | None
    """With the text there is; None where many are too few, or where one seed is meant to do."""
    needs_both: bool = False
    """Only so much text together with so many seeds does."""


def find_reach(
    split: Split,
    budget: float,
    spread: Spread,
    num_seeds: int,
    freedom_per_seed: float,
    difference: float,
    factor: float = 1.0,
) -> Reach:
    """What would detect `difference`, from a design with so much text and so many seeds."""

    def reaches(num_bytes: float, seeds: int) -> bool:
        errors = split.errors(num_bytes, spread, seeds, freedom_per_seed)
        return math.isfinite(errors.document_freedom) and power(errors, difference, factor) >= POWER

    def least_text(seeds: int) -> int | None:
        if budget >= split.num_bytes or not reaches(split.num_bytes, seeds):
            return None
        low, high = budget, split.num_bytes
        while high / low > 1.03:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if reaches(middle, seeds) else (middle, high)
        step = math.pow(10.0, math.floor(math.log10(high)) - 1)
        return round(min(split.num_bytes, math.ceil(high / step) * step))

    if reaches(budget, num_seeds):
        return Reach(difference, True, round(min(budget, split.num_bytes)), num_seeds)
    more = range(num_seeds + 1, MOST_SEEDS + 1) if num_seeds > 1 else range(0)
    text, seeds = least_text(num_seeds), next((count for count in more if reaches(budget, count)), None)
    if text is None and seeds is None:
        seeds = next((count for count in more if reaches(split.num_bytes, count)), None)
        if seeds is not None:
            return Reach(difference, False, least_text(seeds), seeds, needs_both=True)
    return Reach(difference, False, text, seeds)


def _power(halves: Sequence[tuple[float, float]], errors: Errors, difference: float) -> float:
    deviation = math.sqrt(2.0 * errors.variance)
    if deviation == 0:
        return float(difference > 0)
    return sum(share * math.erfc((half - difference) / deviation) for share, half in halves) / 2.0


def _half_widths(errors: Errors, factor: float) -> list[tuple[float, float]]:
    """Half-widths of the intervals that may come out, each with its probability: variances are estimates too."""
    tail = SIGNIFICANCE / factor / 2.0
    documents = errors.document_variance * student(errors.document_freedom, tail) ** 2
    seeds = errors.seed_variance * student(errors.seed_freedom, tail) ** 2 if errors.seed_variance > 0 else 0.0
    found = []
    for share, by_documents in chi_square(errors.document_freedom):
        if not seeds:
            found.append((share, math.sqrt(documents * by_documents)))
            continue
        for other, by_seeds in chi_square(errors.seed_freedom):
            variance = errors.seed_variance * by_seeds
            counts = variance / (variance + errors.document_variance * by_documents / 2.0)
            found.append((share * other, math.sqrt(documents * by_documents + seeds * by_seeds * counts)))
    return found


def median_of_variance(freedom: float) -> float:
    """The median of what a variance of 1 is estimated to be: less than 1, more so with few degrees of freedom."""
    return (1.0 - 2.0 / (9.0 * freedom)) ** 3


@lru_cache(maxsize=1000)
def student(freedom: float, tail: float) -> float:
    """Student's upper quantile. With t = sqrt(freedom) tan(x), the density of x is that of cos(x) ** (freedom - 1)."""
    if freedom > _ALWAYS_NORMAL:
        return -_NORMAL.inv_cdf(tail)
    count = 1000
    step = math.pi / 2.0 / count
    heights = [math.sin((place + 0.5) * step) ** (freedom - 1.0) for place in range(count)]
    wanted, mass = 2.0 * tail * sum(heights), 0.0
    for place, height in enumerate(heights):
        if mass + height >= wanted:
            return math.sqrt(freedom) / math.tan((place + (wanted - mass) / height) * step)
        mass += height
    return 0.0


@lru_cache(maxsize=1000)
def chi_square(freedom: float) -> tuple[tuple[float, float], ...]:
    """Probabilities and values of chi-square over its degrees of freedom, spaced evenly by their logarithm."""
    if freedom > _ALWAYS_NORMAL:
        return ((1.0, 1.0),)
    deviation = math.sqrt(2.0 / freedom)
    count = 16 if freedom < 10 else 8
    logs = [deviation * (-7.5 + 11.0 * (place + 0.5) / count) for place in range(count)]
    weights = [math.exp(freedom / 2.0 * (log - math.exp(log) + 1.0)) for log in logs]
    total = sum(weights)
    return tuple((weight / total, math.exp(log)) for weight, log in zip(weights, logs, strict=True))
