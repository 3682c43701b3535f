"""What was decided at a rung: all configurations side by side, with intervals, and who goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from lorabench.analysis.race import Race
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
