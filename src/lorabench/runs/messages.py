"""What a worker, in another process or on another machine, tells the command that it works for: how far it is, and what
became of its task.

The worker's context has a `ForwardingView`, whose events travel as plain values; the command gives them to `show`, with
the worker's own `RunContext.of_worker`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from pydantic import ConfigDict

from lorabench.core.settings import Frozen
from lorabench.runs.context import RunContext
from lorabench.runs.task import RunOptions, TaskOutcome
from lorabench.runs.view import RunView

EVENT_SECONDS = 0.2
"""Between two events that only say how far something is."""


class _Wire(Frozen):
    """Numbers that are none, such as the loss of a run that diverged, stay what they are in JSON."""

    model_config = ConfigDict(ser_json_inf_nan="constants")


class Event(_Wire):
    """What a view is told: its method, and the values for it."""

    call: Literal["message", "phase", "progress", "start_run", "step"]
    values: tuple[str | int | float | None, ...]


class WorkerSetup(_Wire):
    """What a worker on this machine is told before its first task."""

    name: str
    device: str
    """torch's name for it, in the worker's process."""
    options: RunOptions
    command: tuple[str, ...]
    """That the user gave, for records."""


class Problem(_Wire):
    """Why a worker cannot go on, and so neither can the command."""

    sentence: str
    exit_code: int


class Report(_Wire):
    """What a worker says at once: one of these, or none when it is ready for its first task."""

    event: Event | None = None
    outcome: TaskOutcome | None = None
    problem: Problem | None = None


class ForwardingView(RunView):
    """Hands everything that it is told to `send`, which may be called from any thread; mere progress now and then."""

    def __init__(
        self, send: Callable[[Event], None], seconds: float = EVENT_SECONDS, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._send = send
        self._seconds = seconds
        self._now = now
        self._sent: tuple[str, float] = ("", 0.0)
        """What was progressing when an event was sent last, and when that was."""
        self._lock = threading.Lock()

    def message(self, text: str) -> None:
        """See RunView."""
        self._send(Event(call="message", values=(text,)))

    def phase(self, name: str, total: float | None = None, unit: str = "") -> object:
        """See RunView."""
        self._send(Event(call="phase", values=(name, total, unit)))
        return None

    def start_run(self, run_id: str, index: int, steps: int = 0) -> None:
        """See RunView; the command counts its runs itself."""
        self._send(Event(call="start_run", values=(run_id, steps)))

    def progress(self, description: str, done: float, total: float | None) -> None:
        """See Progress."""
        if self._is_due(description, is_last=total is not None and done >= total):
            self._send(Event(call="progress", values=(description, done, total)))

    def step(self, step: int, total: int, loss: float, tokens_per_second: float) -> None:
        """See RunView."""
        if self._is_due("step", is_last=step >= total):
            self._send(Event(call="step", values=(step, total, loss, tokens_per_second)))

    def _is_due(self, what: str, *, is_last: bool) -> bool:
        with self._lock:
            now, (previous, sent_at) = self._now(), self._sent
            if what == previous and not is_last and now - sent_at < self._seconds:
                return False
            self._sent = what, now
            return True


def show(event: Event, context: RunContext) -> None:
    """Show what a worker's view was told."""
    shown_by = context if event.call == "start_run" else context.view
    getattr(shown_by, event.call)(*event.values)
