"""Pairs candidates: the same documents, the same seeds; or says why two cannot be compared."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lorabench.analysis.findings import Candidate, Setting
from lorabench.analysis.statistics import Floats, Interval, Uncertain, compare_all
from lorabench.analysis.validation import ValidationRun
from lorabench.records.columns import AXES

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

    def interval(self, factor: float = 1.0) -> Interval | None:
        """As reported beside a verdict whose p-value was multiplied by `factor`."""
        if self.difference is None:
            return None
        return self.difference.interval(self.num_documents, len(self.seeds), seed_note(self.seeds), factor)


class Pairs:
    """Differences between candidates of one corpus, paired by document and seed; the spread over seeds is pooled."""

    def __init__(self, candidates: Sequence[Measured]) -> None:
        self._candidates = {item.key: item for item in candidates}
        self._panels: dict[tuple[int, ...], _Panel] = {}

    def difference(self, first: str, second: str) -> Pairing:
        """First minus second, on the seeds that both were run with."""
        one, two = self._candidates[first], self._candidates[second]
        if one.nll is None or two.nll is None:
            return Pairing(None, reason=MISSING_DOCUMENTS)
        seeds = tuple(sorted(set(one.shown.seeds) & set(two.shown.seeds)))
        if not seeds:
            return Pairing(None, reason="they were run with different seeds")
        panel = self._panel(seeds)
        return self._pairing(panel, panel.places[first], panel.places[second], one.nll.shape[1])

    def gain(self, key: str) -> Pairing:
        """The base minus the candidate."""
        item = self._candidates[key]
        if item.nll is None or item.base_nll is None:
            return Pairing(None, reason=MISSING_DOCUMENTS)
        panel = self._panel(item.shown.seeds)
        return self._pairing(panel, panel.bases[item.base_nll.tobytes()], panel.places[key], item.nll.shape[1])

    @cached_property
    def matrix(self) -> Uncertain:
        """Every candidate minus every other, [K, K]; NaN where `difference` has none."""
        count = len(self._candidates)
        fields = {field.name: np.full((count, count), np.nan) for field in dataclasses.fields(Uncertain)}
        places: dict[tuple[int, ...], list[int]] = {}
        for place, item in enumerate(self._candidates.values()):
            if item.nll is not None and item.nll.shape[1] > 1:
                places.setdefault(item.shown.seeds, []).append(place)
        keys = list(self._candidates)
        for one, two in itertools.product(places, repeat=2):
            if seeds := tuple(sorted(set(one) & set(two))):
                panel = self._panel(seeds)
                where = np.ix_(places[one], places[two])
                found = [[panel.places[keys[place]] for place in places[of]] for of in (one, two)]
                part = panel.differences.take(np.ix_(*found))
                for name, values in fields.items():
                    values[where] = getattr(part, name)
        return Uncertain(**fields)

    def _pairing(self, panel: _Panel, first: int, second: int, num_documents: int) -> Pairing:
        if num_documents < 2:
            return Pairing(None, reason="there is only one document")
        return Pairing(panel.differences.take((first, second)), panel.seeds, num_documents, seed_note(panel.seeds))

    def _panel(self, seeds: tuple[int, ...]) -> _Panel:
        if seeds not in self._panels:
            self._panels[seeds] = _make_panel(seeds, self._candidates.values())
        return self._panels[seeds]


@dataclass(frozen=True)
class _Panel:
    """All candidates that were run with some seeds, and their bases."""

    seeds: tuple[int, ...]
    places: Mapping[str, int]
    """By key."""
    bases: Mapping[bytes, int]
    """By the base's results of all of the candidate's seeds."""
    differences: Uncertain


def _make_panel(seeds: tuple[int, ...], candidates: Iterable[Measured]) -> _Panel:
    places: dict[str, int] = {}
    bases: dict[bytes, int] = {}
    rows: list[Floats] = []
    alike: dict[object, int] = {}
    groups: list[int] = []
    num_bytes = None
    for item in candidates:
        if item.nll is None or not set(seeds) <= set(item.shown.seeds):
            continue
        num_bytes = item.num_bytes
        chosen = [item.shown.seeds.index(seed) for seed in seeds]
        places[item.key] = len(rows)
        rows.append(item.nll[chosen])
        groups.append(alike.setdefault(_spreads_like(item.shown), len(alike)))
        if item.base_nll is not None and (name := item.base_nll.tobytes()) not in bases:
            bases[name] = len(rows)
            rows.append(item.base_nll[chosen])
            groups.append(alike.setdefault(name, len(alike)))
    assert num_bytes is not None
    return _Panel(seeds, places, bases, compare_all(np.stack(rows), num_bytes, groups))


def _spreads_like(candidate: Candidate) -> tuple[Setting, ...]:
    """What its spread over seeds depends on: the model, the method, and how it was trained, first of all the rate."""
    axes = (name for name, axis in AXES.items() if name == "method" or not axis.is_in("adapter"))
    return tuple(candidate.settings[name] for name in axes)


def seed_note(seeds: Sequence[int]) -> str:
    """What one seed leaves open."""
    return f"on seed {seeds[0]} only" if len(seeds) == 1 else ""
