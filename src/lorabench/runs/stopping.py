"""Ctrl-C and SIGTERM end a run after its current step, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lorabench.core.locks import waits_end_when


@contextmanager
def stop_in_good_order(on_first: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C or SIGTERM calls `on_first` and makes the yielded function return True.

    `on_first` runs in a thread of its own: what it writes would fail in a handler that broke into another write.
    """
    asked = threading.Event()
    saying = threading.Thread(target=on_first, name="lorabench-stopping", daemon=True)
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        saying.start()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with waits_end_when(asked.is_set):
            yield asked.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if asked.is_set():
            saying.join()
