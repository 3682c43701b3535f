"""Differences with their verdicts, corrected for how many a question makes, and with intervals that agree with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorabench.analysis.findings import Comparison, Verdict
from lorabench.analysis.pairing import Pairing
from lorabench.analysis.rules import SIGNIFICANCE
from lorabench.analysis.statistics import Interval, Uncertain, holm_factors, stack
from lorabench.core.formatting import with_interval


def verdict_of(difference: float, adjusted_p: float) -> Verdict:
    """What a corrected comparison came to."""
    if not adjusted_p < SIGNIFICANCE:
        return Verdict.NO_DETECTABLE_DIFFERENCE
    return Verdict.LOWER if difference < 0 else Verdict.HIGHER


@dataclass(frozen=True)
class Correction:
    """For the number of comparisons that one question makes."""

    factor: float
    """What the p-value was multiplied by; the interval shown beside the verdict is as much wider."""
    adjusted_p: float


def correct(differences: Sequence[Uncertain | None]) -> list[Correction | None]:
    """Over one family, after Holm; None stands for what could not be compared, and counts for nothing."""
    known = [difference for difference in differences if difference is not None]
    p_values = stack(known).p_value() if known else np.zeros(0)
    corrections = iter([Correction(f, min(1.0, f * p)) for f, p in zip(holm_factors(p_values), p_values, strict=True)])
    return [None if difference is None else next(corrections) for difference in differences]


def compared(first: str, second: str, pairing: Pairing, correction: Correction | None) -> Comparison:
    """One comparison as reported."""
    if pairing.difference is None or correction is None:
        return Comparison(first, second, Verdict.NOT_COMPARED, reason=pairing.reason)
    verdict = verdict_of(float(pairing.difference.estimate), correction.adjusted_p)
    interval = pairing.interval(correction.factor)
    return Comparison(first, second, verdict, interval, correction.adjusted_p, pairing.reason)


def show_difference(interval: Interval | None) -> str:
    """`−0.0123 bits per byte (95 % interval −0.0150 to −0.0096)`."""
    if interval is None:
        return "an unknown difference"
    shown, ends = with_interval(interval, is_signed=True)
    return f"{shown} bits per byte ({ends if interval.low is None else f'95 % interval {ends}'})"


def oriented(comparisons: Sequence[Comparison], lowest: str, other: str) -> Interval | None:
    """The interval of lowest minus other, however the pair was written."""
    for item in comparisons:
        if (item.first, item.second) == (lowest, other):
            return item.difference
        if (item.first, item.second) == (other, lowest) and item.difference is not None:
            return item.difference.negated
    return None


def seed_limit(comparisons: Sequence[Comparison]) -> str:
    """In brackets, that the verdicts hold on one seed only; empty where none is limited so."""
    reasons = {item.reason for item in comparisons if item.verdict is not Verdict.NOT_COMPARED and item.reason}
    return f" ({sorted(reasons)[0]})" if reasons else ""
