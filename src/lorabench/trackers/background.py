"""One thread per tracker, so that none of them can slow or fail a run.

The run hands its figures over in microseconds; the thread delivers them in order. The first failure, a call that does
not come back, or a queue that only grows switches the tracker off for good, with one sentence and without secrets.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence

from lorabench.core.redaction import without_anything_key_like
from lorabench.records.schema import RunRecord, Sample
from lorabench.trackers.base import MAX_QUEUED, STALL_SECONDS, TrackedReport, TrackedRun, Tracker, Values


class BackgroundTracker:
    """A tracker behind a queue: every call returns at once and raises nothing."""

    def __init__(
        self,
        name: str,
        tracker: Tracker,
        report: Callable[[str], None],
        *,
        max_queued: int = MAX_QUEUED,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.name = name
        self._tracker = tracker
        self._report = report
        self._stall_seconds = stall_seconds
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(max_queued)
        self._off = threading.Event()
        self._busy_since: float | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_off(self) -> bool:
        """It failed; nothing reaches it any more."""
        return self._off.is_set()

    def start(self, run: TrackedRun) -> None:
        """See Tracker."""
        self._submit(lambda: self._tracker.start(run))

    def log_step(self, values: Values) -> None:
        """See Tracker; costs microseconds."""
        copy = dict(values)
        self._submit(lambda: self._tracker.log_step(copy))

    def log_evaluation(self, values: Values) -> None:
        """See Tracker."""
        copy = dict(values)
        self._submit(lambda: self._tracker.log_evaluation(copy))

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """See Tracker."""
        copy = tuple(samples)
        self._submit(lambda: self._tracker.log_samples(copy))

    def finish(self, record: RunRecord | None, status: str) -> None:
        """See Tracker; does not wait for it."""
        self._submit(lambda: self._tracker.finish(record, status))

    def log_report(self, report: TrackedReport) -> None:
        """See Tracker; does not wait for it."""
        self._submit(lambda: self._tracker.log_report(report))

    def close(self, timeout_seconds: float) -> None:
        """Let the tracker finish what it was handed, but wait no longer than `timeout_seconds`."""
        thread = self._thread
        if thread is None or self.is_off:
            return
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            self._switch_off("it fell too far behind")
            return
        thread.join(timeout_seconds)
        if thread.is_alive():
            self._switch_off(f"it was not done {timeout_seconds:.0f} seconds after the last run")

    def _submit(self, call: Callable[[], None]) -> None:
        if self.is_off:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver, name=f"lorabench-{self.name}", daemon=True)
            self._thread.start()
        busy_since = self._busy_since
        if busy_since is not None and time.monotonic() - busy_since > self._stall_seconds:
            self._switch_off(f"it has not answered for {self._stall_seconds:.0f} seconds")
            return
        try:
            self._queue.put_nowait(call)
        except queue.Full:
            self._switch_off("it fell too far behind")

    def _deliver(self) -> None:
        while (call := self._queue.get()) is not None and not self.is_off:
            self._busy_since = time.monotonic()
            try:
                call()
            except BaseException as error:
                self._switch_off(plain_reason(error))
                return
            finally:
                self._busy_since = None

    def _switch_off(self, reason: str) -> None:
        with self._lock:
            if self._off.is_set():
                return
            self._off.set()
        with contextlib.suppress(Exception):
            self._report(f"tracking with {self.name} is switched off: {reason}; every figure is in metrics.jsonl")


def plain_reason(error: BaseException) -> str:
    """One line on what went wrong, without anything that could be a secret."""
    text = str(error).strip()
    if text in {"", "<no message>"}:
        text = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text.splitlines()[0])
    return without_anything_key_like(text)[:240].rstrip(" .")
