"""Executor: one worker a device, each a process of its own on this machine that keeps the base it has loaded."""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from lorabench.core.device import Device
from lorabench.core.errors import EnvironmentProblem, InputError
from lorabench.core.worker_devices import WorkerDevice, common_device, parse_devices
from lorabench.experiment.identity import BaseVariant
from lorabench.records.provenance import command_line
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import FINISHED, DamagedRecordError
from lorabench.runs.context import RunContext
from lorabench.runs.draft import Draft
from lorabench.runs.leases import lease_path, try_lease
from lorabench.runs.messages import Event, Report, WorkerSetup, show
from lorabench.runs.processes import Received, WorkerProcess
from lorabench.runs.task import RunTask, TaskOutcome, TaskState

MOST_TRIES = 3
"""Of a run during which its worker's process ends; then the run has failed."""
CLOSING_SECONDS = 60.0
"""That trackers may take to hand over what they hold."""
STOPPING_SECONDS = 10.0
"""That a worker may take once the user has asked twice."""
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class DevicesKind:
    """Makes the executor, for the devices that `--devices` names."""

    devices: str | None = None

    def at(self, address: str) -> DevicesKind:
        """For those devices."""
        return DevicesKind(address)

    def find_device(self, name: str | None) -> Device:
        """What one of the workers computes on. Raises InputError."""
        if self.devices is None or name is not None:
            raise InputError("--executor devices: give --devices, such as all, 0,1 or cpu:2, instead")
        return common_device(parse_devices(self.devices))

    def __call__(self, context: RunContext) -> Devices:
        """Start nothing yet: a worker is started with its first task."""
        return Devices(context, parse_devices(self.devices or ""))


class Worker:
    """A device, and the process that computes on it, which is started with the first task and after each death."""

    def __init__(self, device: WorkerDevice, context: RunContext, devices: Devices) -> None:
        self.device = device
        self.context = context.of_worker(device.name)
        self.task: RunTask | None = None
        self.process: WorkerProcess | None = None
        self._devices = devices
        self._last: RunTask | None = None

    def nearness(self, task: RunTask) -> int:
        """How much of what the task needs is at hand: the base, and the text read with it."""
        if self.process is None or self._last is None:
            return 0
        same_base = BaseVariant.of(task.spec) == BaseVariant.of(self._last.spec)
        return same_base + (same_base and task.inputs == self._last.inputs)

    def submit(self, task: RunTask) -> None:
        """Do the task next."""
        self.task = self._last = task
        options = task.options.model_copy(update={"device": self.device.there})
        if self.process is None:
            setup = WorkerSetup(
                name=self.device.name, device=options.device, options=options, command=tuple(command_line())
            )
            overhear = partial(self._devices.overhear, self.device.name)
            self.process = WorkerProcess(self.device, setup, self._devices.inbox, overhear)
        self.process.submit(task.model_copy(update={"options": options}))


class Devices:
    """Hands tasks to workers, and starts a new one where one dies; the run that it was at is tried again."""

    def __init__(self, context: RunContext, devices: Sequence[WorkerDevice]) -> None:
        self._context = context
        self.inbox: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self._workers = [Worker(device, context, self) for device in devices]
        self._deaths: Counter[str] = Counter()
        """By run, of workers that were at it."""
        self._said: dict[str, str] = {}
        """By sentence, the worker that said it."""
        self._is_stopping = False
        self._killed_at: float | None = None
        """When workers are killed that have not stopped; None: never."""

    @property
    def num_free(self) -> int:
        """Workers without a task."""
        return sum(worker.task is None for worker in self._workers)

    def submit(self, task: RunTask) -> None:
        """Give the task to the free worker that has most of what it needs at hand."""
        free = [worker for worker in self._workers if worker.task is None]
        max(free, key=lambda worker: worker.nearness(task)).submit(task)

    def next_outcome(self) -> TaskOutcome:
        """Show what workers do until one of them is done."""
        while True:
            try:
                outcome = self._next()
            except KeyboardInterrupt:  # the user's second Ctrl-C
                self._interrupt()
                self._killed_at = time.monotonic() + (STOPPING_SECONDS if self._killed_at is None else 0.0)
                continue
            if outcome is not None:
                return outcome

    def stop(self) -> None:
        """End all workers, in good order; those that are at a task stop it."""
        for worker in self._workers:
            if worker.process is not None:
                worker.process.close()
        deadline = time.monotonic() + CLOSING_SECONDS
        for worker in self._workers:
            if worker.process is not None:
                worker.process.wait(deadline - time.monotonic())

    def say(self, name: str, sentence: str) -> None:
        """Show what the worker of that name says, once where several say the same."""
        if self._said.setdefault(sentence, name) == name:
            self._context.view.message(sentence)

    def overhear(self, name: str, line: str) -> None:
        """Show what a library wrote to the worker's standard error."""
        if self._said.setdefault(line, name) == name:
            self._context.view.message(f"{name}: {line}")

    def _next(self) -> TaskOutcome | None:
        if self._context.should_stop() and not self._is_stopping:
            self._is_stopping = True
            self._interrupt()
        if self._killed_at is not None and time.monotonic() > self._killed_at:
            for process in self._busy():
                process.kill()
        try:
            received = self.inbox.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return None
        worker = next((worker for worker in self._workers if worker.process is received.process), None)
        if worker is None:
            return None
        return self._ended(worker) if received.report is None else self._reported(worker, received.report)

    def _busy(self) -> list[WorkerProcess]:
        return [worker.process for worker in self._workers if worker.task is not None and worker.process is not None]

    def _interrupt(self) -> None:
        for process in self._busy():
            process.interrupt()

    def _reported(self, worker: Worker, report: Report) -> TaskOutcome | None:
        if report.problem is not None:
            kind = InputError if report.problem.exit_code == InputError.exit_code else EnvironmentProblem
            raise kind(report.problem.sentence)
        if report.event is not None:
            self._show(worker, report.event)
        if report.outcome is None or worker.task is None:
            return None
        return self._over(worker, worker.task, report.outcome)

    def _show(self, worker: Worker, event: Event) -> None:
        if event.call == "message":
            self.say(worker.device.name, str(event.values[0]))
        else:
            show(event, worker.context)

    def _over(self, worker: Worker, task: RunTask, outcome: TaskOutcome) -> TaskOutcome | None:
        record = outcome.record
        if record is not None and record.status is Status.CANCELLED and not self._context.should_stop():
            assert worker.process is not None
            worker.process.close()  # somebody else stopped this worker: its end is a death like any other
            return None
        worker.task = None
        if outcome.state is TaskState.UNNEEDED and self._deaths[task.run_id]:
            record = self._context.store.read(task.run_id)  # written just before its worker died
            return outcome.model_copy(update={"state": TaskState.DONE, "record": record})
        return outcome

    def _ended(self, worker: Worker) -> TaskOutcome | None:
        """A worker's process is gone."""
        process, task = worker.process, worker.task
        assert process is not None
        worker.process = worker.task = None
        if task is None:
            return None
        if self._is_stopping:
            return TaskOutcome(run_id=task.run_id, state=TaskState.STOPPED)
        how = process.how_it_ended()
        if not process.has_reported and not process.was_killed:
            raise EnvironmentProblem(f"{worker.device.name}: the worker could not start; its process {how}")
        self._deaths[task.run_id] += 1
        tries = self._deaths[task.run_id]
        if tries < MOST_TRIES:
            self._context.view.message(
                f"{worker.device.name}: the process that did {task.run_id} {how}; a new one goes on with it "
                f"(try {tries + 1} of {MOST_TRIES})"
            )
            worker.submit(task)
            return None
        return self._give_up(worker, task, f"its worker's process died {tries} times; the last one {how}")

    def _give_up(self, worker: Worker, task: RunTask, reason: str) -> TaskOutcome:
        """Record the run as failed, unless it was finished and only being measured."""
        store = self._context.store
        with try_lease(lease_path(store, task.run_id)) as mine:
            if not mine:
                return TaskOutcome(run_id=task.run_id, state=TaskState.HELD)
            previous: RunRecord | None = None
            with suppress(DamagedRecordError):
                previous = store.read(task.run_id)
            if previous is not None and previous.status in FINISHED:
                self._context.view.message(f"{task.run_id}: could not be measured; {reason}")
                return TaskOutcome(run_id=task.run_id, state=TaskState.UNNEEDED)
            environment = self._context.environment.model_copy(update={"worker": worker.device.name})
            record = Draft(task, environment, previous).finish(Status.FAILED, reason)
            store.write(record)
        return TaskOutcome(run_id=task.run_id, state=TaskState.DONE, record=record)


EXECUTOR = DevicesKind()
