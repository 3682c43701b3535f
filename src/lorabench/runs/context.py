"""What every run in one process is given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from lorabench.core.device import Device
from lorabench.core.errors import CancelledError
from lorabench.core.locks import exclusively
from lorabench.records.schema import Environment
from lorabench.records.store import RecordStore
from lorabench.runs.task import RunTask
from lorabench.runs.view import RunView
from lorabench.trackers.make import TrackerGroup
from lorabench.training.ranks import Ranks


class Once(Protocol):
    """Holds what is made once for all workers: files in `target`'s folder whose names begin with its name."""

    def __call__(self, target: Path, *, on_wait: Callable[[str], None]) -> AbstractContextManager[None]:
        """Waits for whoever makes them, saying for whom, and holds them while inside: they may be there then.

        Raises DiskError, or CancelledError where the user stops the command.
        """


@dataclass
class RunContext:
    """Where runs are written, shown and tracked, what they run on, and when they stop."""

    store: RecordStore
    trackers: TrackerGroup
    view: RunView
    device: Device
    environment: Environment
    should_stop: Callable[[], bool]
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that share each run, of which this is one."""
    side_by_side: int | None = 1
    """So many runs at once share their passes over the base; None: as many as pay."""
    once: Once = exclusively
    """Keeps workers from computing the same for all of them twice."""
    _started: dict[str, int] = field(default_factory=dict)
    """Runs in the order in which they began, from 1."""

    def show_start(self, task: RunTask, num_steps: int = 0) -> None:
        """Show that a task's run begins or goes on."""
        self.start_run(task.run_id, num_steps)

    def start_run(self, run_id: str, num_steps: int = 0) -> None:
        """Show that a run begins or goes on, and which of the runs begun it is."""
        index = self._started.setdefault(run_id, len(self._started) + 1)
        self.view.start_run(run_id, index, num_steps)

    def of_worker(self, name: str) -> RunContext:
        """The same, for what a worker of that name does: the runs of all are counted together."""
        return replace(self, view=self.view.worker(name))

    def hold(self, target: Path, *, on_wait: Callable[[str], None]) -> AbstractContextManager[None]:
        """See Once."""
        return self.once(target, on_wait=on_wait)

    def progress(self, description: str, done: float, total: float | None) -> None:
        """Show how far long work is, and end it where the user wants to stop: nothing is lost before training."""
        if self.should_stop():
            raise CancelledError(f"stopped while {description}")
        self.view.progress(description, done, total)
