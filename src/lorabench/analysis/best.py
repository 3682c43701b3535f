"""The set of candidates that holds the best one: step-down comparison with the best (docs/statistics.md).

A member leaves when another one is lower by more than chance allows: at a two-sided p times (m - 1) / 2 below 0.05,
with m members left, so one-sided over the m - 1 that could be better. Then again, with fewer members, until none
leaves. The best one then leaves at most 5 times in a hundred, however many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorabench.analysis.candidates import CorpusGroup
from lorabench.analysis.comparisons import seed_limit, show_difference
from lorabench.analysis.findings import BestSet, Comparison, Verdict
from lorabench.analysis.rules import factor_for
from lorabench.analysis.statistics import NUMERICAL_BITS, Floats, Uncertain
from lorabench.core.formatting import cost, figure


@dataclass(frozen=True)
class Subset:
    """Which of K candidates may be the best, and why the others are not."""

    members: tuple[int, ...]
    """Places, in their given order."""
    beaten_by: Mapping[int, int]
    """Place of one that is not the best -> place of a member of its round that is lower."""
    factors: Mapping[int, float]
    """By place: what a two-sided p is multiplied by, in the round in which it left, or in the last one."""
    cost_at_most: Mapping[int, float]
    """Bits per byte by which a member is worse than the best at most, where there is more than one (Hsu's bound)."""


def find_best(differences: Uncertain, num_looks: int = 1) -> Subset:
    """From all differences, first minus second [K, K]; where two cannot be compared (NaN), neither leaves by it.

    Whoever looks several times and lets some leave each time divides the level by the number of looks.
    """
    members = np.arange(len(differences.estimate))
    beaten_by: dict[int, int] = {}
    factors: dict[int, float] = {}
    while True:
        among = differences.take(np.ix_(members, members))
        half = np.maximum(among.half_width(num_looks * factor_for(len(members))), NUMERICAL_BITS)
        is_lower = among.estimate < -half
        leaves = is_lower.any(axis=0)
        factors |= dict.fromkeys(members.tolist(), factor_for(len(members)))
        if not leaves.any():
            return Subset(tuple(members.tolist()), beaten_by, factors, _costs(members, among.estimate + half))
        for place in np.flatnonzero(leaves):
            beaten_by[int(members[place])] = int(members[np.flatnonzero(is_lower[:, place])[0]])
        members = members[~leaves]


def _costs(members: npt.NDArray[np.intp], highest: Floats) -> dict[int, float]:
    """The largest of the upper ends of a member minus each other one, and no less than nothing."""
    costs = {}
    for row, place in enumerate(members.tolist()):
        ends = np.delete(highest[row], row)
        if np.isfinite(ends).any():
            costs[place] = max(0.0, float(np.nanmax(ends)))
    return costs


def best_sets(groups: Sequence[CorpusGroup]) -> list[BestSet]:
    """For each corpus the candidates that may be the best."""
    return [_best_set(group) for group in groups]


def _best_set(group: CorpusGroup) -> BestSet:
    if not group.candidates:
        return BestSet(None, (), (), {}, f"No run on {group.label} has a result")
    differences = group.pairs.matrix
    subset = find_best(differences)
    keys = [item.key for item in group.candidates]
    lowest = subset.members[0]
    others = np.array([place for place in range(len(keys)) if place != lowest], dtype=np.intp)
    lower = np.array([subset.beaten_by.get(place, lowest) for place in others.tolist()], dtype=np.intp)
    p_values = differences.take((lower, others)).p_value()
    comparisons = tuple(
        _against(group, keys[first], keys[second], second in subset.beaten_by, subset.factors[second], float(p_value))
        for first, second, p_value in zip(lower.tolist(), others.tolist(), p_values, strict=True)
    )
    tied = tuple(keys[place] for place in subset.members)
    costs = {keys[place]: at_most for place, at_most in subset.cost_at_most.items()}
    return BestSet(keys[lowest], tied, comparisons, costs, _claim(group, comparisons, tied, costs))


def _against(group: CorpusGroup, first: str, second: str, is_beaten: bool, factor: float, p_value: float) -> Comparison:
    pairing = group.pairs.difference(first, second)
    if pairing.difference is None:
        return Comparison(first, second, Verdict.NOT_COMPARED, reason=pairing.reason)
    verdict = Verdict.NOT_THE_BEST if is_beaten else Verdict.NO_DETECTABLE_DIFFERENCE
    return Comparison(first, second, verdict, pairing.interval(factor), min(1.0, factor * p_value), pairing.reason)


def _claim(
    group: CorpusGroup, comparisons: Sequence[Comparison], tied: Sequence[str], costs: Mapping[str, float]
) -> str:
    lowest = next(item for item in group.candidates if item.key == tied[0])
    shown = f"{lowest.shown.label} with {figure(lowest.shown.bits_per_byte)} bits per byte"
    if not comparisons:
        return f"Only one configuration has a result on {group.label}: {shown}"
    incomparable = [item for item in comparisons if item.verdict is Verdict.NOT_COMPARED]
    if len(incomparable) == len(comparisons):
        return f"No best on {group.label}: nothing could be compared with {shown}: {incomparable[0].reason}"
    seeds = seed_limit(comparisons)
    if len(tied) == 1:
        nearest = comparisons[0]
        return f"Best on {group.label}{seeds}: {shown}. Against the next, {show_difference(nearest.difference)}"
    set_of = f"The best on {group.label}{seeds} is one of {len(tied)} of {len(group.candidates)} configurations"
    left_out = f". {len(incomparable)} could not be compared: {incomparable[0].reason}" if incomparable else ""
    at_most = costs.get(lowest.key)
    price = "" if at_most is None else f"; taking it costs at most {cost(at_most)} bits per byte"
    return f"{set_of}, 95 times in a hundred. Lowest is {shown}{price}{left_out}"
