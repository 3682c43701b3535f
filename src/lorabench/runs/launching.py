"""One run on several devices of this machine: a process for each, started and watched by torch's launcher.

The process of rank 0 (`runs.rank`) holds the run: lease, trackers, checkpoints, record. This one shows what it tells,
hands on that the user wants to stop, and records what became of a run whose process died.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from lorabench.core.device import Device
from lorabench.core.errors import InputError, LorabenchError
from lorabench.records.schema import Status
from lorabench.records.store import FINISHED, DamagedRecordError
from lorabench.runs.context import RunContext
from lorabench.runs.draft import Draft
from lorabench.runs.leases import lease_path, try_lease
from lorabench.runs.messages import Problem, Report, show
from lorabench.runs.task import RunTask, TaskOutcome, TaskState

TASK, ENVIRONMENT, SOCKET, LOGS, PIDS = "task.json", "environment.json", "socket", "logs", "pid-*"
_POLL_SECONDS = 0.1


def check_devices(device: Device, num_devices: int, *, is_worker: bool = False) -> None:
    """Raise InputError where a run cannot have so many devices like this one; a worker's run has one."""
    if num_devices == 1:
        return
    if is_worker:
        raise InputError(
            f"training.devices: {num_devices} shares each run between devices, and --devices or --executor gives each "
            "run to one; leave one of them out"
        )
    if device.type == "cpu":
        return
    if device.type == "mps":
        raise InputError(f"training.devices: {num_devices} is not accepted on mps: there is one Apple GPU; give 1")
    if device.index is not None:
        raise InputError(
            f"training.devices: {num_devices} takes the first {num_devices} GPUs, not {device}; leave the device out, "
            "or choose with CUDA_VISIBLE_DEVICES"
        )
    import torch

    if torch.cuda.device_count() < num_devices:
        raise InputError(
            f"training.devices: {num_devices} is not accepted: torch finds {torch.cuda.device_count()} GPUs here"
        )


def do_on_devices(task: RunTask, context: RunContext) -> TaskOutcome:
    """Do or measure the run in a process a device. Raises InputError where there are not so many.

    Where a process dies the others end at once, and the record says that the same command goes on.
    """
    check_devices(context.device, task.num_devices)
    with tempfile.TemporaryDirectory(prefix="lorabench-") as name:
        folder = Path(name)
        environment = context.environment.model_copy(update={"num_devices": task.num_devices})
        (folder / ENVIRONMENT).write_text(environment.model_dump_json(), encoding="utf-8")
        (folder / TASK).write_text(task.model_dump_json(), encoding="utf-8")
        launch = _Launch(folder, task.num_devices)
        try:
            report = _attend(launch, folder / SOCKET, context)
        except KeyboardInterrupt:
            launch.kill()
            return _record_end(task, context, Status.CANCELLED, "stopped at once by the user")
        except BaseException:
            launch.kill()
            raise
    if report.outcome is not None:
        return report.outcome
    if report.problem is not None:
        raise _error_of(report.problem)
    return _record_end(task, context, Status.FAILED, f"{launch.death}; the same command goes on")


class _Launch:
    """The processes of a run, one a device."""

    def __init__(self, folder: Path, num_devices: int) -> None:
        self._folder = folder
        self._num_devices = num_devices
        self.death = "its processes ended without a result"
        """Which process died first, and how."""
        self._thread = threading.Thread(target=self._run, name="lorabench-launch", daemon=True)

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def wait(self) -> None:
        """Until every process has ended."""
        self._thread.join()

    @property
    def is_over(self) -> bool:
        """Whether every process has ended."""
        return not self._thread.is_alive()

    def kill(self) -> None:
        """End every process now."""
        while self._thread.is_alive():
            for path in self._folder.glob(PIDS):
                with suppress(OSError, ValueError):
                    os.kill(int(path.read_text(encoding="ascii")), signal.SIGKILL)
            self._thread.join(_POLL_SECONDS)

    def _run(self) -> None:
        """Not in the main thread, where torch would put its own handlers in the place of ours."""
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=self._num_devices,
            run_id=self._folder.name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=str(self._folder / LOGS), redirects=Std.ALL),
        )
        try:
            with _quiet("torch.distributed"):
                elastic_launch(config, sys.executable)("-P", "-m", "lorabench.runs.rank", str(self._folder))
        except ChildFailedError as error:
            _, first = error.get_first_failure()
            how = f"was ended by {signal.Signals(-first.exitcode).name}" if first.exitcode < 0 else "failed"
            said = "" if first.exitcode < 0 else _last_line(self._folder / LOGS, first.local_rank)
            self.death = f"the process of rank {first.local_rank} of {self._num_devices} {how}{said}"
        except Exception as error:  # whatever keeps torch from starting them
            self.death = f"torch could not start {self._num_devices} processes: {' '.join(str(error).split())[:300]}"


def _attend(launch: _Launch, address: Path, context: RunContext) -> Report:
    """Show what rank 0 tells until all processes have ended; returns the last of it: what became of the task."""
    connection: Connection | None = None
    report, told = Report(), False
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen(1)
        server.settimeout(_POLL_SECONDS)
        launch.start()
        while connection is None and not launch.is_over:
            with suppress(TimeoutError):
                connection = Connection(server.accept()[0].detach())
    while connection is not None:
        if context.should_stop() and not told:
            told = True
            with suppress(OSError):
                connection.send_bytes(b"stop")
        try:
            if not connection.poll(_POLL_SECONDS):
                continue
            said = Report.model_validate_json(connection.recv_bytes())
        except (EOFError, OSError):
            connection.close()
            connection = None
            continue
        if said.event is not None:
            show(said.event, context)
        else:
            report = said
    launch.wait()
    return report


def _record_end(task: RunTask, context: RunContext, status: Status, reason: str) -> TaskOutcome:
    """Record that the run has ended before its own processes could; whoever took it over meanwhile keeps it."""
    with try_lease(lease_path(context.store, task.run_id)) as mine:
        if not mine:
            return TaskOutcome(run_id=task.run_id, state=TaskState.HELD)
        try:
            previous = context.store.read(task.run_id)
        except DamagedRecordError:
            previous = None
        if previous is not None and previous.status in FINISHED:  # it was being measured
            context.view.message(f"{task.run_id}: {reason}")
            return TaskOutcome(run_id=task.run_id, state=TaskState.MEASURED, record=previous)
        environment = context.environment.model_copy(update={"num_devices": task.num_devices})
        draft = Draft(task, environment, previous)
        record = draft.finish(status, reason, environment_failed=status is Status.FAILED)
        context.store.write(record)
    return TaskOutcome(run_id=task.run_id, state=TaskState.DONE, record=record)


def _error_of(problem: Problem) -> LorabenchError:
    kind = InputError if problem.exit_code == InputError.exit_code else LorabenchError
    return kind(problem.sentence)


def _last_line(logs: Path, rank: int) -> str:
    """The last that a rank wrote to standard error, after a colon."""
    for path in logs.rglob(f"{rank}/stderr.log"):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        if said:
            return f": {said[-1][:300]}"
    return ""


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Inside, the loggers below `name` are silent: a process that dies is said in one sentence."""
    loggers = [logging.getLogger(found) for found in logging.root.manager.loggerDict if found.startswith(name)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
