"""A lease on a run: two processes never do the same run at once, and a dead owner's lease is free at once.

The lease is an advisory lock that the kernel (on a network file system: the server) gives back when its owner dies,
however it dies. No clock decides who is alive, so a clock that jumps or an owner that was stopped for a day and goes on
cannot make two owners. The file's content and its heartbeat only tell people who holds it and whether it still moves.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorabench.core.locks import try_lock
from lorabench.records.store import LEASE_NAME, RecordStore

HEARTBEAT_SECONDS = 10.0
SILENCE_SECONDS = 60.0
"""An owner that gives no sign of life for so long is stopped, or its machine is gone."""


def lease_path(store: RecordStore, run_id: str) -> Path:
    """Where the run's lease lies."""
    return store.run_dir(run_id) / LEASE_NAME


@contextmanager
def try_lease(path: Path) -> Iterator[bool]:
    """Hold the lease while inside; yields False, at once, where another process holds it. Raises DiskError."""
    handle = try_lock(path)
    if handle is None:
        yield False
        return
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(handle, stop), name="lease-heartbeat", daemon=True)
    heart.start()
    try:
        yield True
    finally:
        stop.set()
        heart.join()
        os.close(handle)


class Watch:
    """Sees whether the owner of a lease still moves, by this machine's steady clock alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beat = self._read()
        self._since = time.monotonic()

    def silent_seconds(self) -> float:
        """For how long the heartbeat has been the same while this watch looked."""
        beat = self._read()
        if beat != self._beat:
            self._beat, self._since = beat, time.monotonic()
        return time.monotonic() - self._since

    def _read(self) -> int | None:
        with contextlib.suppress(OSError):
            return self.path.stat().st_mtime_ns
        return None


def _beat(handle: int, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(handle)
