"""Differences with their verdicts, and the best configuration of a corpus.

Only validation results come in (by type). A claim is made where the corrected comparison supports it; everything that
stands in the way of one becomes a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.analysis.candidates import CorpusGroup
from lorabench.analysis.findings import BestSet, Comparison, Verdict
from lorabench.analysis.pairing import Measured, Pairing
from lorabench.analysis.statistics import Floats, Interval, stack
from lorabench.core.formatting import bits, signed_bits

SIGNIFICANCE = 0.05


def verdict_of(difference: float, adjusted_p: float) -> Verdict:
    """What a corrected comparison came to."""
    if not adjusted_p < SIGNIFICANCE:
        return Verdict.NO_DETECTABLE_DIFFERENCE
    return Verdict.LOWER if difference < 0 else Verdict.HIGHER


def compared(first: str, second: str, pairing: Pairing, adjusted_p: float | None) -> Comparison:
    """One comparison as reported."""
    if pairing.difference is None or adjusted_p is None:
        return Comparison(first, second, Verdict.NOT_COMPARED, reason=pairing.reason)
    verdict = verdict_of(float(pairing.difference.estimate), adjusted_p)
    return Comparison(first, second, verdict, pairing.interval, adjusted_p, pairing.reason)


def p_values(pairings: Sequence[Pairing]) -> Floats:
    """Uncorrected, of those that could be compared."""
    differences = [pairing.difference for pairing in pairings if pairing.difference is not None]
    return stack(differences).p_value()


def show_difference(interval: Interval | None) -> str:
    """`−0.0123 bits per byte (95 % interval −0.0150 to −0.0096)`."""
    if interval is None:
        return "an unknown difference"
    if interval.low is None or interval.high is None:
        return f"{signed_bits(interval.estimate)} bits per byte (no interval: {interval.note})"
    ends = f"95 % interval {signed_bits(interval.low)} to {signed_bits(interval.high)}"
    return f"{signed_bits(interval.estimate)} bits per byte ({ends})"


def oriented(comparisons: Sequence[Comparison], lowest: str, other: str) -> Interval | None:
    """The interval of lowest minus other, however the pair was written."""
    for item in comparisons:
        if (item.first, item.second) == (lowest, other):
            return item.difference
        if (item.first, item.second) == (other, lowest) and item.difference is not None:
            found = item.difference
            low, high = (None, None) if found.low is None or found.high is None else (-found.high, -found.low)
            return Interval(-found.estimate, low, high, found.num_documents, found.num_seeds, found.note)
    return None


def best_sets(groups: Sequence[CorpusGroup]) -> list[BestSet]:
    """For each corpus the best candidate, or those that the lowest cannot be distinguished from.

    The lowest is picked after looking, so every pair that could have been picked counts in the correction.
    """
    num_pairs = sum(len(group.candidates) * (len(group.candidates) - 1) // 2 for group in groups)
    return [_best_set(group, num_pairs) for group in groups]


def _best_set(group: CorpusGroup, num_pairs: int) -> BestSet:
    if not group.candidates:
        return BestSet(None, (), (), f"No run on {group.label} has a result")
    lowest, *others = group.candidates
    pairings = [group.pairs.difference(lowest.key, item.key) for item in others]
    adjusted = iter(p_values(pairings) * num_pairs if any(item.difference for item in pairings) else ())
    comparisons = tuple(
        compared(lowest.key, item.key, pairing, None if pairing.difference is None else min(1.0, float(next(adjusted))))
        for item, pairing in zip(others, pairings, strict=True)
    )
    tied = (lowest.key, *(item.second for item in comparisons if item.verdict is not Verdict.LOWER))
    return BestSet(lowest.key, tied, comparisons, _best_claim(group, lowest, comparisons, len(tied)))


def _best_claim(group: CorpusGroup, lowest: Measured, comparisons: Sequence[Comparison], num_tied: int) -> str:
    figure = f"{bits(lowest.estimate)} bits per byte"
    if not comparisons:
        return f"Only one configuration has a result on {group.label} ({lowest.shown.label}: {figure}); it beat nothing"
    incomparable = [item for item in comparisons if item.verdict is Verdict.NOT_COMPARED]
    left_out = f"; {len(incomparable)} could not be compared: {incomparable[0].reason}" if incomparable else ""
    labels = {item.key: item.shown.label for item in group.candidates}
    seeds = seed_limit(comparisons)
    if len(incomparable) == len(comparisons):
        return (
            f"No best on {group.label}: nothing could be compared with the lowest, {lowest.shown.label} ({figure})"
            + (f": {incomparable[0].reason}")
        )
    if num_tied == 1:
        nearest = comparisons[0]
        against = f"against the next, {labels[nearest.second]}, {show_difference(nearest.difference)}"
        return f"Best on {group.label}{seeds}: {lowest.shown.label} with {figure}; {against}"
    num_beaten = len(comparisons) + 1 - num_tied
    beaten = f" and below the other {num_beaten}" if num_beaten else ""
    return (
        f"No single best on {group.label}{seeds}: {lowest.shown.label} is lowest with {figure}{beaten}, but "
        f"{_others(num_tied - 1 - len(incomparable))} cannot be told from it{left_out}"
    )


def _others(count: int) -> str:
    return "1 other configuration" if count == 1 else f"{count} other configurations"


def seed_limit(comparisons: Sequence[Comparison]) -> str:
    """In brackets, that one seed limits the verdicts; empty where none is limited so."""
    reasons = {item.reason for item in comparisons if item.verdict is not Verdict.NOT_COMPARED and item.reason}
    return f" ({sorted(reasons)[0]}, another seed may order them otherwise)" if reasons else ""
