"""The base that this process has loaded, and what was read, tokenised and scored with it."""

from __future__ import annotations

import time

from lorabench.core.device import memory_for_this_process
from lorabench.experiment.calibration import calibrate
from lorabench.experiment.estimates import remember_start
from lorabench.experiment.identity import BaseVariant
from lorabench.runs.context import RunContext
from lorabench.runs.group import GroupWork, SharedBase
from lorabench.runs.keeping import SHARE_OF_MEMORY, Keeper
from lorabench.runs.task import RunTask


class LoadedBase:
    """One base at a time: it is freed before another one is loaded."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._work: GroupWork | None = None
        self._shared: SharedBase | None = None
        self._has_loaded = False

    def open(self, task: RunTask) -> GroupWork:
        """What the task's run shares with others, loaded where the last task was of another group."""
        variant = BaseVariant.of(task.spec)
        work = self._work
        if work is None or work.inputs != task.inputs or work.shared.variant != variant:
            self._work = work = None  # before the next text is read
            shared = self._load(task, variant)
            self._work = work = GroupWork(
                shared,
                task.inputs,
                self._context.store.base_scores_dir,
                self._context.progress,
                self._context.hold,
                Keeper(int(SHARE_OF_MEMORY * memory_for_this_process(self._context.device))),
            )
        return work

    def free(self) -> None:
        """Give the memory back."""
        self._work = None
        if self._shared is not None:
            self._shared.free()
            self._shared = None

    def _load(self, task: RunTask, variant: BaseVariant) -> SharedBase:
        """The base, which groups of several corpora share."""
        if self._shared is None or self._shared.variant != variant:
            self.free()
            self._context.view.phase(f"loading {task.spec.model}")
            if not self._has_loaded:
                calibrate(self._context.device)
            started = time.perf_counter()
            self._shared = SharedBase.load(task.inputs.model, variant, self._context.device, self._context.progress)
            if not self._has_loaded:  # later bases find the libraries imported
                remember_start(self._context.device, "loading", time.perf_counter() - started)
                self._has_loaded = True
        return self._shared
