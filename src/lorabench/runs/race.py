"""A rung: all configurations side by side, with intervals; while it is under way, and who goes on once it is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from lorabench.analysis.statistics import Interval, estimate_figure
from lorabench.records.documents import DocumentResults


@dataclass(frozen=True)
class RaceRow:
    """A configuration at a rung."""

    label: str
    num_seeds: int
    bits_per_byte: float | None
    """Mean over seeds; None where it was not scored with every seed."""
    interval: Interval | None
    """Over documents and seeds; None where documents cannot be read."""
    goes_on: bool


@dataclass(frozen=True)
class Decision:
    """What became of those that reached a rung, the lowest first, and then those that were not compared."""

    corpus: str
    where: str
    rows: tuple[RaceRow, ...]


@dataclass(frozen=True)
class Racer:
    """A configuration while a rung is under way."""

    label: str
    run_ids: tuple[str, ...]
    """One for each seed."""
    num_scored: int
    """Of its seeds, at the rung that it has reached last with any."""
    bits_per_byte: float | None
    """Mean over seeds; None before every seed is scored."""
    interval: Interval | None
    stopped: str | None
    """Why it goes no further; None: it is in the race."""

    @property
    def is_scored(self) -> bool:
        """Whether it has its figure at the rung that is under way."""
        return self.stopped is None and self.bits_per_byte is not None


@dataclass(frozen=True)
class Race:
    """A rung that is not decided yet: those with a figure, the lowest first, those to come, and those that left."""

    corpus: str
    where: str
    racers: tuple[Racer, ...]


@runtime_checkable
class Deciding(Protocol):
    """A strategy that decides at rungs."""

    decided: list[Decision]
    """What was decided and not shown yet, the first one first."""

    def races(self) -> Sequence[Race]:
        """The rungs that are under way, one for a corpus at most."""


def interval_of(documents: Sequence[DocumentResults]) -> Interval | None:
    """Of one configuration's figure, from its documents with each seed; None where there are none, or other ones."""
    if not documents or len({item.fingerprint for item in documents}) > 1:
        return None
    nll = np.stack([item.nll for item in documents])
    return estimate_figure(nll, documents[0].num_bytes).interval(nll.shape[1], nll.shape[0])
