"""The race of a search within a rung: OUTPUT/races/NAME.json, for the page alone; nothing is decided from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lorabench.analysis.statistics import Interval
from lorabench.core.storage import read_regular, write_atomically
from lorabench.records.asked import MAX_BYTES

FOLDER = "races"


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

    @property
    def num_scored(self) -> int:
        """Configurations that have their figure."""
        return sum(racer.is_scored for racer in self.racers)

    @property
    def num_here(self) -> int:
        """Configurations that have come as far as this rung."""
        return sum(racer.stopped is None for racer in self.racers)


_RACES = TypeAdapter(tuple[Race, ...])


def write_races(output_dir: Path, experiment: str, races: Sequence[Race]) -> None:
    """Raises DiskError."""
    write_atomically(output_dir / FOLDER / f"{experiment}.json", _RACES.dump_json(tuple(races)))


def read_races(output_dir: Path, experiment: str) -> tuple[Race, ...]:
    """As they were last written; empty where that cannot be read, since the next run that ends writes them anew."""
    try:
        return _RACES.validate_json(read_regular(output_dir / FOLDER / f"{experiment}.json", MAX_BYTES))
    except (OSError, ValidationError):
        return ()
