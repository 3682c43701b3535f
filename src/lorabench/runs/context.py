"""What every run in one process is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lorabench.core.device import Device
from lorabench.core.errors import CancelledError
from lorabench.records.schema import Environment
from lorabench.records.store import RecordStore
from lorabench.runs.task import RunTask
from lorabench.runs.view import RunView
from lorabench.trackers.make import TrackerGroup


@dataclass
class RunContext:
    """Where runs are written, shown and tracked, what they run on, and when they stop."""

    store: RecordStore
    trackers: TrackerGroup
    view: RunView
    device: Device
    environment: Environment
    should_stop: Callable[[], bool]
    _started: list[str] = field(default_factory=list)

    def show_start(self, task: RunTask, num_steps: int = 0) -> None:
        """Show that a run begins or goes on."""
        if task.run_id not in self._started:
            self._started.append(task.run_id)
        self.view.start_run(task.run_id, 1 + self._started.index(task.run_id), num_steps)

    def progress(self, description: str, done: float, total: float | None) -> None:
        """Show how far long work is, and end it where the user wants to stop: nothing is lost before training."""
        if self.should_stop():
            raise CancelledError(f"stopped while {description}")
        self.view.progress(description, done, total)
