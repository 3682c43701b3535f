"""What a view of a running experiment shows, whatever it looks like."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from lorabench.analysis.race import Race
from lorabench.cli.views.clock import Clock


@dataclass
class Work:
    """What one worker does."""

    worker: str = ""
    """Its name; empty for the command itself."""
    run_id: str | None = None
    run_index: int = 0
    phase: str = ""
    done: float = 0.0
    total: float | None = None
    unit: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    share_trained: float = 0.0
    """Of the current run's steps."""
    first: tuple[float, float] | None = None
    """When it was first heard how much of the phase is done, and how much it was."""

    def start_phase(self, name: str, total: float | None, unit: str = "") -> None:
        """Something else is done now."""
        self.phase, self.total, self.unit, self.done, self.fields = name, total, unit, 0.0, {}
        self.first = None

    def move(self, done: float, total: float | None, now: float) -> None:
        """So much of the phase is done."""
        self.done, self.total = done, total
        self.first = self.first or (now, done)

    def seconds_left(self, now: float) -> float | None:
        """Of the phase, at the speed that was seen; None before that can be told."""
        if self.total is None or self.first is None or self.done <= self.first[1]:
            return None
        return (self.total - self.done) * (now - self.first[0]) / (self.done - self.first[1])

    def end_run(self) -> None:
        """Nothing is done now."""
        self.run_id, self.share_trained = None, 0.0
        self.start_phase("", None)


@dataclass
class State:
    """Everything a view shows."""

    num_runs: int = 0
    """Runs to do now; those that were done before are not among them."""
    num_skipped: int = 0
    num_done: int = 0
    works: dict[str, Work] = field(default_factory=dict)
    """By the worker's name."""
    started: float = field(default_factory=time.monotonic)
    clock: Clock = field(default_factory=Clock)
    races: Sequence[Race] = ()
    """Rungs of a search that are under way."""

    @property
    def losses(self) -> dict[str, str]:
        """Of the runs under way, by run id; empty before the first step."""
        return {work.run_id: work.fields.get("loss", "") for work in self.works.values() if work.run_id is not None}
