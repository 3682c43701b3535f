"""Runs side by side in this process: several at once, their passes over the base that they share in one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import torch

from lorabench.experiment.identity import BaseVariant
from lorabench.runs.context import RunContext
from lorabench.runs.group import GroupWork
from lorabench.runs.keeping import adapts_beside
from lorabench.runs.loaded import LoadedBase
from lorabench.runs.task import RunTask, TaskOutcome
from lorabench.runs.worker import do_task
from lorabench.trackers.make import make_trackers
from lorabench.training.meeting import Meeting, Member

_POLL_SECONDS = 0.2


def can_be_beside(task: RunTask, other: RunTask) -> bool:
    """Whether two runs may share their passes: plain LoRA over one base that is held as it is, on one device."""
    return (
        task.inputs == other.inputs
        and BaseVariant.of(task.spec) == BaseVariant.of(other.spec)
        and all(map(_can_share, (task, other)))
    )


def _can_share(task: RunTask) -> bool:
    return adapts_beside(task) and task.spec.training.precision != "fp16" and task.stop_reason is None


class LoadedMember(LoadedBase):
    """The loaded base as one of the runs has it."""

    def __init__(self, context: RunContext, loaded: LoadedBase, meeting: Meeting, number: int) -> None:
        super().__init__(context)
        self._loaded = loaded
        self._meeting = meeting
        self._number = number
        self._member: GroupWork | None = None

    def open(self, task: RunTask) -> GroupWork:
        """What is shared, over a base of its own."""
        if self._member is None:
            work = self._loaded.open(task)
            base = Member(work.shared.base, self._meeting, self._number)
            shared = replace(work.shared, base=base)
            self._member = replace(work, shared=shared, progress=self._context.progress, keeper=None)
        return self._member

    def free(self) -> None:
        """The base stays."""
        self._member = None


def do_beside(tasks: Sequence[RunTask], context: RunContext, loaded: LoadedBase) -> list[TaskOutcome]:
    """Do tasks of which each `can_be_beside` each: every run has its lease, trackers, checkpoints and record.

    One that ends, however it ends, leaves the others to go on. What `do_task` raises of any is raised once all ended.
    """
    meeting, num_threads = Meeting(len(tasks)), torch.get_num_threads()
    outcomes: dict[int, TaskOutcome] = {}
    problems: list[BaseException] = []

    def do(number: int, task: RunTask) -> None:
        torch.set_num_threads(num_threads)
        options = task.options
        trackers = make_trackers(
            options.trackers or "none", options.output_dir, upload_adapters=options.upload_adapters
        )
        shown = context.of_worker(f"lane {number + 1}")
        own = replace(shown, trackers=trackers)
        try:
            with meeting.attended(number), trackers:
                outcomes[number] = do_task(task, own, LoadedMember(own, loaded, meeting, number))
        except BaseException as problem:
            problems.append(problem)

    threads = [
        threading.Thread(target=do, args=(number, task), name=f"lorabench-run-{number}", daemon=True)
        for number, task in enumerate(tasks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        _join(thread, meeting)
    if problems:
        raise problems[0]
    return [outcomes[number] for number in range(len(tasks))]


def _join(thread: threading.Thread, meeting: Meeting) -> None:
    """Wait for its end. The first Ctrl-C that is no longer in good order ends all runs, the next one the command."""
    while thread.is_alive():
        try:
            thread.join(_POLL_SECONDS)
        except KeyboardInterrupt:
            if meeting.interrupted:
                raise
            meeting.interrupted = True
