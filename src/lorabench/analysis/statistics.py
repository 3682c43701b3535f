"""How sure a figure or a difference is, from per-document results. docs/statistics.md explains it and measures it.

Bits per byte is a ratio (all nats over all bytes), its documents differ in length by orders of magnitude, and there are
often few of them: the percentile bootstrap then covers the truth too rarely. Intervals here take each document as a
cluster: a cluster-robust variance (CR2) with the degrees of freedom of Bell and McCaffrey (2002). The spread over
seeds is pooled within pairs of groups that spread alike, and added with the few degrees of freedom that it has. All of
it is closed-form: the same figures always give the same interval.

Arrays: K candidates, S seeds, D documents; nll [K, S, D] or [S, D] in nats, num_bytes [D].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from lorabench.analysis.rules import SIGNIFICANCE, document_freedom, own_share

Floats = npt.NDArray[np.float64]

NUMERICAL_BITS = 1e-6
"""Bits per byte: figures nearer to each other than this are the same but for rounding."""
_LOG_SMALLEST_P = math.log(1e-15)


@dataclass(frozen=True)
class Interval:
    """An estimate and how sure it is."""

    estimate: float
    low: float | None = None
    """None, with `high`, where there is no interval; `note` says why."""
    high: float | None = None
    num_documents: int = 0
    num_seeds: int = 1
    """With one seed the interval holds for that seed alone."""
    note: str = ""
    """Plain words: `on this seed`, `per-document results are missing`, …"""

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def negated(self) -> Interval:
        """That of second minus first, where this is of first minus second."""
        low, high = (None, None) if self.low is None or self.high is None else (-self.high, -self.low)
        return dataclasses.replace(self, estimate=-self.estimate, low=low, high=high)


@dataclass(frozen=True)
class Uncertain:
    """Estimates [...] with the variance from documents and from seeds, each with its degrees of freedom."""

    estimate: Floats
    document_variance: Floats
    document_freedom: Floats
    seed_variance: Floats
    """Beyond what the documents explain; 0 with one seed."""
    seed_freedom: Floats

    def half_width(self, factor: float = 1.0) -> Floats:
        """Half the width of the 95 % interval, or of a wider one that goes with p-values multiplied by `factor`."""
        return self._half_width(np.asarray(SIGNIFICANCE / factor / 2.0))

    def p_value(self) -> Floats:
        """The level at which the interval would just reach zero, two-sided."""
        distance = np.abs(self.estimate)
        low, high = np.full(distance.shape, _LOG_SMALLEST_P), np.zeros(distance.shape)
        for _ in range(45):  # halvings of the logarithm's range: to some 1e-11 of it
            middle = (low + high) / 2.0
            is_too_wide = self._half_width(np.exp(middle) / 2.0) > distance
            low, high = np.where(is_too_wide, middle, low), np.where(is_too_wide, high, middle)
        return np.where(distance <= NUMERICAL_BITS, 1.0, np.exp(high))

    def interval(self, num_documents: int, num_seeds: int, note: str = "", factor: float = 1.0) -> Interval:
        """For a single estimate, as reported: it leaves out zero where the p-value times `factor` is below 0.05."""
        estimate, half = float(self.estimate), float(self.half_width(factor))
        if not (math.isfinite(estimate) and math.isfinite(half)):
            return Interval(estimate, None, None, num_documents, num_seeds, "too few documents")
        return Interval(estimate, estimate - half, estimate + half, num_documents, num_seeds, note)

    def take(self, index: int | tuple[int, int] | tuple[npt.NDArray[np.intp], ...]) -> Uncertain:
        """One or some of the estimates."""
        return Uncertain(*(np.asarray(getattr(self, field.name)[index]) for field in dataclasses.fields(self)))

    def _half_width(self, tail: Floats) -> Floats:
        documents = _quantile(self.document_freedom, tail) ** 2 * self.document_variance
        # The few-degrees quantile counts as far as seeds matter beside documents: exact at both ends, and measured
        # to stay near the level between them, where adding the squares would be too wide and Satterthwaite too narrow.
        total = self.seed_variance + self.document_variance / 2.0
        share = np.divide(self.seed_variance, total, out=np.zeros_like(total), where=total > 0)
        seeds = np.where(share > 0, _quantile(self.seed_freedom, tail) ** 2 * self.seed_variance * share, 0.0)
        return np.asarray(np.sqrt(documents + seeds))


def _quantile(freedom: Floats, tail: Floats) -> Floats:
    """Student's, each degree of freedom computed once where the tail is the same for all."""
    if tail.ndim:
        return np.asarray(stdtrit(freedom, tail))
    values, places = np.unique(freedom, return_inverse=True)
    return np.asarray(stdtrit(values, tail)[places].reshape(freedom.shape))


def estimate_figure(nll: Floats, num_bytes: Floats) -> Uncertain:
    """Bits per byte of one candidate, mean over seeds. nll [S, D]."""
    return compare_all(np.stack([nll, np.zeros_like(nll)]), num_bytes).take((0, 1))


def compare_pair(first: Floats, second: Floats, num_bytes: Floats) -> Uncertain:
    """First minus second in bits per byte, paired by document and seed, which are in one order. Both [S, D]."""
    return compare_all(np.stack([first, second]), num_bytes).take((0, 1))


def compare_all(nll: Floats, num_bytes: Floats, alike: Sequence[int] | None = None) -> Uncertain:
    """Every candidate minus every other, [K, K], paired by document and seed. nll [K, S, D].

    `alike` [K] numbers the groups within which candidates spread alike over seeds, such as those of one learning rate:
    within a pair of groups the variance over seeds is pooled. Without it nothing is pooled.
    """
    num_candidates, num_seeds, num_documents = nll.shape
    total_bytes = float(num_bytes.sum())
    leverage = num_bytes / total_bytes
    figures = nll.sum(axis=2) / (math.log(2.0) * total_bytes)
    means = figures.mean(axis=1)
    if num_documents < 2:
        freedom, weights = math.nan, np.full(num_documents, math.nan)
    else:
        # A residual keeps 1 - leverage of its document's variance, since the ratio was fitted to it (as in CR2).
        weights = 1.0 / (1.0 - leverage)
        freedom = document_freedom(num_bytes)
    # How far each document moves the ratio of sums: its nats beyond its share of the bytes.
    influence = nll / (math.log(2.0) * total_bytes) - figures[:, :, None] * leverage
    influence *= np.sqrt(weights)
    shared = influence.mean(axis=1)
    document_variance = _variance_of_differences(shared) + NUMERICAL_BITS**2
    shape = document_variance.shape
    seed_variance, seed_freedom = np.zeros(shape), np.ones(shape)
    if num_seeds > 1:
        groups = np.unique(np.arange(num_candidates) if alike is None else np.asarray(alike), return_inverse=True)[1]
        within = (influence - shared[:, None, :]).reshape(num_candidates, -1)
        seed_variance, seed_freedom = _over_seeds(figures - means[:, None], within, groups)
    return Uncertain(
        means[:, None] - means[None, :],
        document_variance,
        np.full(shape, freedom),
        seed_variance,
        seed_freedom,
    )


def _variance_of_differences(rows: Floats) -> Floats:
    """Sums of squared differences between all rows, [K, K]."""
    products = rows @ rows.T
    squares = np.diag(products)
    return np.maximum(squares[:, None] + squares[None, :] - 2.0 * products, 0.0)


def _over_seeds(deviations: Floats, within: Floats, groups: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Variance over seeds of each pair, beyond what documents explain, and its degrees of freedom, both [K, K].

    deviations [K, S]: of each seed's figure from the candidate's mean. What a seed does to both of a pair is taken out
    by pairing. The rest is pooled over the pairs of two groups; as members of one group are never quite alike, a pair's
    own spread counts beside the pool (`own_share`).
    """
    num_seeds = deviations.shape[1]
    scale, own_freedom, share = 1.0 / ((num_seeds - 1) * num_seeds), num_seeds - 1, own_share(num_seeds)
    members = np.eye(groups.max() + 1)[groups]
    places = np.ix_(groups, groups)
    own, own_explained = (_variance_of_differences(rows) * scale for rows in (deviations, within))
    pooled = _mean_of_pairs(own, members)
    pooled_freedom = _pooled_freedom(pooled, deviations, members)[places]
    spread = share * own + (1.0 - share) * pooled[places]
    explained = share * own_explained + (1.0 - share) * _mean_of_pairs(own_explained, members)[places]
    freedom = 1.0 / (share**2 / own_freedom + (1.0 - share**2) / pooled_freedom)
    # With few seeds the spread is often small by luck: at least half of it counts, whatever the documents explain.
    return np.maximum(spread - explained, spread / 2.0), freedom


def _pooled_freedom(pooled: Floats, deviations: Floats, members: Floats) -> Floats:
    """Degrees of freedom of the mean over the pairs of two groups, [G, G]; members [K, G].

    It is the sum, after Satterthwaite, of what a seed does to one group and not to the other, which the groups' means
    tell with S - 1 degrees of freedom, and of what it does to single candidates, which all of a group tell.
    """
    num_seeds, count = deviations.shape[1], members.sum(axis=0)
    freedom = num_seeds - 1
    between = _variance_of_differences((members.T @ deviations) / count[:, None]) / (freedom * num_seeds)
    single = np.diag(pooled) / 2.0 * (1.0 - 1.0 / count)
    weight = np.where(count > 1, single**2 / (freedom * np.maximum(count - 1.0, 1.0)), 0.0)
    total = between**2 / freedom + weight[:, None] + weight[None, :]
    found = np.divide(pooled**2, total, out=np.ones_like(pooled), where=total > 0)
    np.fill_diagonal(found, freedom * np.maximum(count - 1.0, 1.0))
    return np.asarray(found)


def _mean_of_pairs(pairs: Floats, members: Floats) -> Floats:
    """Mean over the pairs of different candidates of each pair of groups; pairs [K, K], members [K, G]."""
    count = members.sum(axis=0)
    num_pairs = np.outer(count, count) - np.diag(count)
    return np.asarray(members.T @ pairs @ members / np.maximum(num_pairs, 1.0))


def mean_of(parts: Sequence[Uncertain]) -> Uncertain:
    """The unweighted mean of independent estimates, such as one difference on several corpora."""
    count = len(parts)
    documents = np.stack([part.document_variance for part in parts])
    seeds = np.stack([part.seed_variance for part in parts])
    return Uncertain(
        np.stack([part.estimate for part in parts]).mean(axis=0),
        documents.sum(axis=0) / count**2,
        _satterthwaite(documents, np.stack([part.document_freedom for part in parts])),
        seeds.sum(axis=0) / count**2,
        _satterthwaite(seeds, np.stack([part.seed_freedom for part in parts])),
    )


def stack(parts: Sequence[Uncertain]) -> Uncertain:
    """Single estimates as one array."""
    return Uncertain(
        *(
            np.array([getattr(part, field.name) for part in parts], dtype=np.float64)
            for field in dataclasses.fields(Uncertain)
        )
    )


def _satterthwaite(variances: Floats, freedoms: Floats) -> Floats:
    """Degrees of freedom of a sum of variances."""
    total, weight = variances.sum(axis=0) ** 2, (variances**2 / freedoms).sum(axis=0)
    return np.where(weight > 0, np.divide(total, weight, out=np.ones_like(total), where=weight > 0), 1.0)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """p-values corrected for their number (Holm 1979): even one false call in a family of equals is then rare."""
    values = np.asarray(p_values, dtype=np.float64)
    return np.minimum(1.0, values * holm_factors(values))


def holm_factors(p_values: Sequence[float] | Floats) -> Floats:
    """What Holm's correction multiplies each p-value by: intervals at 0.05 divided by it agree with the verdicts."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    scaled = values[order] * np.arange(len(values), 0, -1)
    factors = np.empty_like(values)
    factors[order] = (np.maximum.accumulate(scaled) if len(values) else scaled) / values[order]
    return factors
