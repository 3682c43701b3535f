"""Pairs candidates: the same documents, the same seeds; or says why two cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorabench.analysis.findings import Candidate
from lorabench.analysis.statistics import Floats, Interval, Uncertain, compare_all
from lorabench.analysis.validation import ValidationRun

MISSING_DOCUMENTS = "per-document results are missing or damaged"


@dataclass(frozen=True)
class Measured:
    """A candidate with the arrays behind it."""

    shown: Candidate
    nll: Floats | None
    """[S, D]; None where a run's per-document results are missing."""
    base_nll: Floats | None
    num_bytes: Floats | None
    figure: Uncertain | None
    runs: tuple[ValidationRun, ...]

    @property
    def key(self) -> str:
        """Of the candidate."""
        return self.shown.key

    @property
    def estimate(self) -> float:
        """Bits per byte, mean over seeds."""
        return self.shown.bits_per_byte.estimate


@dataclass(frozen=True)
class Pairing:
    """First minus second, or why it cannot be had."""

    difference: Uncertain | None
    seeds: tuple[int, ...] = ()
    num_documents: int = 0
    reason: str = ""

    @property
    def interval(self) -> Interval | None:
        """As reported."""
        if self.difference is None:
            return None
        return self.difference.interval(self.num_documents, len(self.seeds), seed_note(self.seeds))


class Pairs:
    """Differences between candidates of one corpus, paired by document and seed; the spread over seeds is pooled."""

    def __init__(self, candidates: Sequence[Measured]) -> None:
        self._candidates = {item.key: item for item in candidates}
        self._panels: dict[tuple[int, ...], tuple[dict[str, int], Uncertain]] = {}

    def difference(self, first: str, second: str) -> Pairing:
        """First minus second, on the seeds that both were run with."""
        one, two = self._candidates[first], self._candidates[second]
        if one.nll is None or two.nll is None:
            return Pairing(None, reason=MISSING_DOCUMENTS)
        if one.nll.shape[1] < 2:
            return Pairing(None, reason="there is only one document")
        seeds = tuple(sorted(set(one.shown.seeds) & set(two.shown.seeds)))
        if not seeds:
            return Pairing(None, reason="they were run with different seeds")
        if seeds not in self._panels:
            self._panels[seeds] = self._panel(seeds)
        places, differences = self._panels[seeds]
        return Pairing(differences.take((places[first], places[second])), seeds, one.nll.shape[1], seed_note(seeds))

    def _panel(self, seeds: tuple[int, ...]) -> tuple[dict[str, int], Uncertain]:
        members = [
            item for item in self._candidates.values() if item.nll is not None and set(seeds) <= set(item.shown.seeds)
        ]
        chosen = [
            item.nll[[item.shown.seeds.index(seed) for seed in seeds]] for item in members if item.nll is not None
        ]
        num_bytes = members[0].num_bytes
        assert num_bytes is not None
        return {item.key: place for place, item in enumerate(members)}, compare_all(np.stack(chosen), num_bytes)


def seed_note(seeds: Sequence[int]) -> str:
    """What one seed leaves open."""
    return f"on seed {seeds[0]} alone" if len(seeds) == 1 else ""
