"""What a view of a running experiment shows, whatever it looks like."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

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

    def start_phase(self, name: str, total: float | None, unit: str = "") -> None:
        """Something else is done now."""
        self.phase, self.total, self.unit, self.done, self.fields = name, total, unit, 0.0, {}

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
