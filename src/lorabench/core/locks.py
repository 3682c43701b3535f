"""Locks between processes and threads: a file that the kernel locks, and in it the name of who holds it.

The lock is an advisory one (`flock`), which the kernel, or the server of a network file system, gives back when its
holder dies, however it dies. What is written in the file only tells people whom they wait for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lorabench.core.errors import BusyError, CancelledError, DiskError
from lorabench.core.storage import disk_error

FIRST_WORD_SECONDS = 1.0
"""A wait that is over sooner is not worth a word."""
SECONDS_BETWEEN_WORDS = (10.0, 30.0, 60.0)
"""And then every so many seconds of the last one."""
_POLL_SECONDS = 0.1
_LOG = logging.getLogger("lorabench")
_must_stop: Callable[[], bool] = bool
"""Whether the user wants the command to stop; called while waiting."""


@contextmanager
def waits_end_when(must_stop: Callable[[], bool]) -> Iterator[None]:
    """Inside, whoever waits for a lock gives up with CancelledError as soon as `must_stop` says so."""
    global _must_stop
    previous, _must_stop = _must_stop, must_stop
    try:
        yield
    finally:
        _must_stop = previous


@contextmanager
def exclusively(target: Path, *, wait: bool = True, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock on `target` (a file `.lock-<name>` beside it) while inside.

    Waits for other processes and threads, and says for whom and for how long, or tells `on_wait` for whom; raises
    CancelledError where the user stops the command, or, without `wait`, BusyError at once. Raises DiskError where the
    lock cannot be written.
    """
    path = target.with_name(f".lock-{target.name}"[:250])
    handle = try_lock(path)
    if handle is None and not wait:
        raise BusyError(f"{lock_owner(path)} is working on {target}")
    if handle is None:
        handle = _wait(path, target, on_wait)
    try:
        yield
    finally:
        os.close(handle)


def _wait(path: Path, target: Path, on_wait: Callable[[str], None] | None) -> int:
    started, next_word, number = time.monotonic(), FIRST_WORD_SECONDS, 0
    while (handle := try_lock(path)) is None:
        waited = time.monotonic() - started
        if _must_stop():
            raise CancelledError(f"stopped while waiting for {lock_owner(path)}, which is working on {target}")
        if waited >= next_word:
            if on_wait is not None:
                on_wait(lock_owner(path))
            else:
                what = f"{lock_owner(path)}, which is working on {target}: for {waited:.0f} s so far{_advice(path)}"
                _LOG.warning("waiting for %s", what)
            next_word += SECONDS_BETWEEN_WORDS[min(number, len(SECONDS_BETWEEN_WORDS) - 1)]
            number += 1
        time.sleep(_POLL_SECONDS)
    return handle


def try_lock(path: Path) -> int | None:
    """A handle that holds the lock on the file `path`, with this process written in it; None where another holds it.

    Closing the handle gives the lock back. Raises DiskError.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise disk_error(path, error) from None
        try:
            if not _lock(handle, path):
                os.close(handle)
                return None
            if _is_at(handle, path):
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the file was removed meanwhile: nobody else would see a lock on it
    owner = json.dumps({"process": os.getpid(), "machine": socket.gethostname()}).encode()
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(handle, 0)
        os.pwrite(handle, owner, 0)
    return handle


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock at this moment. Raises DiskError."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise disk_error(path, error) from None
    try:
        return _lock(handle, path)
    finally:
        os.close(handle)


def lock_owner(path: Path) -> str:
    """Who took the lock last, for messages."""
    try:
        owner = json.loads(path.read_bytes())
        process, machine = int(owner["process"]), str(owner["machine"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    if machine != socket.gethostname():
        return f"process {process} on {machine[:60]}"
    if process == os.getpid():
        return "another thread of this process"
    return f"process {process}"


def _advice(path: Path) -> str:
    """What to do about a holder that was stopped, by Ctrl-Z or SIGSTOP; nothing about others."""
    process = lock_owner(path).removeprefix("process ")
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        stopped = stat.rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return ""
    return f"; it was stopped, and kill -CONT {process} lets it go on" if stopped else ""


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def _lock(handle: int, path: Path) -> bool:
    """Take the kernel's lock on an open file; False where another holds it. Raises DiskError where there are none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise DiskError(
            f"{path}: this file system has no locks ({error.strerror}), so two processes could spoil each other's "
            "work; choose a folder on another file system"
        ) from None
    return True
