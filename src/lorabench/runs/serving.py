"""A worker's process: does task after task, and keeps the base that it has loaded.

`python -m lorabench.runs.serving` reads a `WorkerSetup` and then tasks from standard input, a line of JSON each, and
writes a `Report` a line to standard output. It ends where its input does: after a task that it is at, for whoever
started it is gone then, in good order, but soon.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from lorabench.core.device import choose_device
from lorabench.core.errors import LorabenchError
from lorabench.core.machine import prepare_process
from lorabench.records.provenance import describe_environment
from lorabench.records.store import RecordStore
from lorabench.runs.context import RunContext
from lorabench.runs.loaded import LoadedBase
from lorabench.runs.messages import ForwardingView, Problem, Report, WorkerSetup
from lorabench.runs.stopping import stop_in_good_order
from lorabench.runs.task import RunTask
from lorabench.runs.worker import do_task
from lorabench.trackers.make import make_trackers

ORPHAN_SECONDS = 10.0
"""A worker whose command is gone has so long to end in good order."""
Send = Callable[[Report], None]


class Tasks:
    """The tasks that come in, one at a time."""

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines
        self._tasks: queue.SimpleQueue[RunTask | None] = queue.SimpleQueue()
        self._is_idle = threading.Event()
        threading.Thread(target=self._read, name="lorabench-tasks", daemon=True).start()

    def next(self) -> RunTask | None:
        """Wait for a task; None: no more will come."""
        self._is_idle.set()
        task = self._tasks.get()
        self._is_idle.clear()
        return task

    def _read(self) -> None:
        for line in self._lines:
            self._tasks.put(RunTask.model_validate_json(line))
        self._tasks.put(None)
        if not self._is_idle.is_set():
            threading.Timer(ORPHAN_SECONDS, os._exit, (1,)).start()
            os.kill(os.getpid(), signal.SIGTERM)


def serve(lines: TextIO, send: Send) -> None:
    """Do what comes in. Raises LorabenchError for what ends more than one run, such as a record that cannot be kept."""
    setup = WorkerSetup.model_validate_json(lines.readline())
    prepare_process()
    device, options = choose_device(setup.device), setup.options
    view = ForwardingView(lambda event: send(Report(event=event)))
    trackers = make_trackers(
        options.trackers or "none", options.output_dir, upload_adapters=options.upload_adapters, report=view.message
    )
    environment = describe_environment(device, list(setup.command))
    with trackers, stop_in_good_order(lambda: None) as should_stop:
        context = RunContext(
            store=RecordStore(options.output_dir),
            trackers=trackers,
            view=view,
            device=device,
            environment=environment.model_copy(update={"worker": setup.name}),
            should_stop=should_stop,
        )
        loaded, tasks = LoadedBase(context), Tasks(lines)
        send(Report())
        try:
            while (task := tasks.next()) is not None:
                send(Report(outcome=do_task(task, context, loaded)))
        finally:
            loaded.free()


def _sender() -> Send:
    """Writes reports to standard output, to which nothing else is written from now on."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def send(report: Report) -> None:
        line = f"\n{report.model_dump_json()}\n"  # begins anew where Ctrl-C broke into the line before
        with lock, suppress(OSError, ValueError):
            output.write(line)
            output.flush()

    return send


def main() -> int:
    """Serve until standard input ends."""
    send = _sender()
    try:
        serve(sys.stdin, send)
    except LorabenchError as error:
        send(Report(problem=Problem(sentence=str(error), exit_code=error.exit_code)))
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
