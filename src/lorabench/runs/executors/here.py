"""Executor: one run after the other in this process, on one device."""

from __future__ import annotations

from lorabench.runs.context import RunContext
from lorabench.runs.loaded import LoadedBase
from lorabench.runs.task import RunTask, TaskOutcome
from lorabench.runs.worker import do_task


class Here:
    """Holds one base at a time; runs that share it, one after the other, load it once."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._loaded = LoadedBase(context)
        self._task: RunTask | None = None

    @property
    def num_free(self) -> int:
        """One task at a time."""
        return 1 if self._task is None else 0

    def submit(self, task: RunTask) -> None:
        """Keep the task until its outcome is asked for."""
        self._task = task

    def next_outcome(self) -> TaskOutcome:
        """Do the task."""
        assert self._task is not None
        task, self._task = self._task, None
        return do_task(task, self._context, self._loaded)

    def stop(self) -> None:
        """Free the base."""
        self._loaded.free()


EXECUTOR = Here
