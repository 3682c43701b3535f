"""The process of a worker on this machine, as the command that started it sees it."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from lorabench.core.worker_devices import WorkerDevice
from lorabench.runs.messages import Report, WorkerSetup
from lorabench.runs.task import RunTask

_COMMAND = (sys.executable, "-P", "-m", "lorabench.runs.serving")


@dataclass(frozen=True)
class Received:
    """What came from a worker's process: a report, or None when the process has ended."""

    process: WorkerProcess
    report: Report | None


class WorkerProcess:
    """A process in a session of its own: Ctrl-C reaches the command alone, which tells its workers.

    What it reports is put into `inbox`; each line that it writes beside that goes to `overhear`, from a thread.
    """

    def __init__(
        self,
        device: WorkerDevice,
        setup: WorkerSetup,
        inbox: queue.SimpleQueue[Received],
        overhear: Callable[[str], None],
    ) -> None:
        self._inbox = inbox
        self._overhear = overhear
        self._last_line = ""
        """Of what it wrote, to say why it ended."""
        self.has_reported = False
        self._process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **device.environment},
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._input: IO[str] = self._process.stdin
        self._threads = [
            threading.Thread(target=target, args=(stream,), name="lorabench-worker", daemon=True)
            for target, stream in ((self._listen, self._process.stdout), (self._listen_aside, self._process.stderr))
        ]
        for thread in self._threads:
            thread.start()
        self._write(setup.model_dump_json())

    def submit(self, task: RunTask) -> None:
        """Give it a task."""
        self._write(task.model_dump_json())

    def interrupt(self) -> None:
        """Ask it to stop in good order; asked again, it stops at once."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """No more tasks will come; it ends after what it is at, or where that is much, soon."""
        with suppress(OSError):
            self._input.close()

    def wait(self, seconds: float) -> None:
        """Until it has ended; one that has not after so long is killed."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:  # a tracker's own process may hold its standard error open
            thread.join(1.0)

    def how_it_ended(self) -> str:
        """For a sentence about the process, once it has ended."""
        code = self._process.wait()
        self._threads[1].join(1.0)
        if code < 0:
            hint = ", as the system does where memory runs out" if code == -signal.SIGKILL else ""
            return f"was ended by {signal.Signals(-code).name}{hint}"
        return f"ended with exit code {code}" + (f" ({self._last_line[:300]})" if self._last_line else "")

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it."""
        return (self._process.poll() or 0) < 0

    def _write(self, line: str) -> None:
        with suppress(OSError, ValueError):  # it has ended or its pipe is closed, which its reports will say
            self._input.write(line + "\n")
            self._input.flush()

    def _listen(self, stream: IO[str]) -> None:
        with stream:
            for line in filter(str.strip, stream):
                with suppress(ValueError):  # what a kill or Ctrl-C broke off
                    report = Report.model_validate_json(line)
                    self.has_reported = True
                    self._inbox.put(Received(self, report))
        self._process.wait()
        self.close()
        self._inbox.put(Received(self, None))

    def _listen_aside(self, stream: IO[str]) -> None:
        with stream:
            for line in filter(str.strip, stream):
                self._last_line = line.strip()
                self._overhear(line.rstrip())
