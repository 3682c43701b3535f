"""Bounds on waiting for the hub: its client and `datasets` retry generously, and draw bars and warn as they do so."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

REQUEST_TIMEOUT_SECONDS = 10.0
"""Longest silence of the hub within one request."""

_CHATTY_LOGGERS = ("huggingface_hub.repocard", "huggingface_hub.repocard_data", "datasets")
_lock = threading.Lock()
_within: list[Callable[[], None]] = []
"""For each thread that is within the bounds, what undoes them: the last to leave does."""


@contextlib.contextmanager
def bounded_client() -> Iterator[None]:
    """Within it a request may be silent for `REQUEST_TIMEOUT_SECONDS` only, and the hub's client draws no bars.

    The bounds are of the whole process; they stand until the last thread within has left.
    """
    with _lock:
        _within.append(_within[-1] if _within else _bound())
    try:
        yield
    finally:
        with _lock:
            undo = _within.pop()
            if not _within:
                undo()


def _bound() -> Callable[[], None]:
    import huggingface_hub
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    drew_bars = not are_progress_bars_disabled()
    levels = {logger: logger.level for logger in map(logging.getLogger, _CHATTY_LOGGERS)}
    session = huggingface_hub.get_session()
    timeout_before = session.timeout
    session.timeout = REQUEST_TIMEOUT_SECONDS
    disable_progress_bars()
    for logger in levels:
        logger.setLevel(logging.CRITICAL)

    def undo() -> None:
        for logger, level in levels.items():
            logger.setLevel(level)
        session.timeout = timeout_before
        if drew_bars:
            enable_progress_bars()

    return undo


@contextlib.contextmanager
def bounded_streaming() -> Iterator[None]:
    """Within it `datasets` leaves retrying to the hub's client (six attempts in 23 s) instead of twenty times that."""
    import datasets
    import datasets.config

    bounds = {
        "STREAMING_READ_MAX_RETRIES": 1,
        "STREAMING_OPEN_MAX_RETRIES": 1,
        "STREAMING_READ_RETRY_INTERVAL": 0,
        "STREAMING_OPEN_RETRY_INTERVAL": 0,
        "STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL": 0,
    }
    before = {name: getattr(datasets.config, name) for name in bounds}
    drew_bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for name, value in bounds.items():
        setattr(datasets.config, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(datasets.config, name, value)
        if drew_bars:
            datasets.enable_progress_bars()
