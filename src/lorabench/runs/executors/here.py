"""Executor: one run after the other in this process, on one device; or several side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from lorabench.core.errors import LorabenchError
from lorabench.experiment.identity import BaseVariant
from lorabench.runs.beside import can_be_beside, do_beside
from lorabench.runs.context import RunContext
from lorabench.runs.loaded import LoadedBase
from lorabench.runs.probe import COUNTS, probe
from lorabench.runs.task import RunTask, TaskOutcome
from lorabench.runs.worker import do_task


class Here:
    """Holds one base at a time; runs that share it load it once, one after the other or side by side."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._loaded = LoadedBase(context)
        self._tasks: list[RunTask] = []
        self._outcomes: deque[TaskOutcome] = deque()
        self._paying: dict[Hashable, int] = {}
        """Runs at once that pay, by what a pass takes."""

    @property
    def num_free(self) -> int:
        """One task at a time, until there are as many as are to be side by side."""
        return int(not self._outcomes and len(self._tasks) < (self._context.side_by_side or max(COUNTS)))

    def submit(self, task: RunTask) -> None:
        """Keep the task until its outcome is asked for."""
        self._tasks.append(task)

    def next_outcome(self) -> TaskOutcome:
        """Do the first task, beside those of the others that can share its passes."""
        if not self._outcomes:
            first = self._tasks[0]
            beside = [first, *(task for task in self._tasks[1:] if can_be_beside(first, task))]
            beside = beside[: self._how_many(beside)]
            self._tasks = [task for task in self._tasks if task not in beside]
            if len(beside) > 1:
                self._outcomes += do_beside(beside, self._context, self._loaded)
            else:
                self._outcomes.append(do_task(first, self._context, self._loaded))
        return self._outcomes.popleft()

    def _how_many(self, tasks: list[RunTask]) -> int:
        """How many of these to do at once: as many as are asked for, or as pay, which is measured once."""
        if self._context.side_by_side is not None or len(tasks) == 1:
            return len(tasks)
        spec = tasks[0].spec
        key = (BaseVariant.of(spec), spec.training.context_length, spec.training.batch_size)
        if key not in self._paying:
            try:
                base = self._loaded.open(tasks[0]).shared.base
            except LorabenchError:  # whoever does the run finds it too, and records it
                return 1
            self._context.view.phase("measuring how many runs pay in one pass")
            measured = probe(base, tasks, self._context.device)
            self._context.view.message(measured.sentence(tasks[0]))
            self._paying[key] = measured.best
        return self._paying[key]

    def stop(self) -> None:
        """Free the base."""
        self._loaded.free()


EXECUTOR = Here
