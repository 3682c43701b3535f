"""Who waits for a lock says for whom and for how long, and stops at the first word of the user."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorabench.core.errors import BusyError, CancelledError
from lorabench.core.locks import exclusively, is_free, lock_owner, try_lock, waits_end_when

HOLD = """
import sys, time, pathlib
from lorabench.core.locks import exclusively
with exclusively(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock on `thing`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "thing")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_does_not_want_to_wait_is_told_who_holds_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(BusyError, match=f"^process {holder.pid} is working on .*thing$"),
        exclusively(tmp_path / "thing", wait=False),
    ):
        pass
    assert not is_free(tmp_path / ".lock-thing")
    holder.kill()
    holder.wait()
    with exclusively(tmp_path / "thing", wait=False):
        assert lock_owner(tmp_path / ".lock-thing") == "another thread of this process"


def test_waiting_says_for_whom_and_how_long_and_goes_on_when_it_may(
    tmp_path: Path, holder: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    holder.send_signal(signal.SIGSTOP)
    threading.Timer(2.0, holder.kill).start()
    with caplog.at_level(logging.WARNING), exclusively(tmp_path / "thing"):
        pass
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"waiting for process {holder.pid}, which is working on {tmp_path / 'thing'}: for 1 s so far" in said
    assert f"it was stopped, and kill -CONT {holder.pid} lets it go on" in said


def test_the_user_ends_a_wait(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    asked = threading.Event()
    threading.Timer(0.5, asked.set).start()
    started = time.monotonic()
    with (
        waits_end_when(asked.is_set),
        pytest.raises(CancelledError, match=f"stopped while waiting for process {holder.pid}"),
        exclusively(tmp_path / "thing"),
    ):
        pass
    assert time.monotonic() - started < 5.0


def test_ctrl_c_ends_a_wait_at_once(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "thing")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        assert f"waiting for process {holder.pid}" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(20) != 0


def test_a_lock_whose_file_was_removed_is_not_held_twice(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """Who locks a file that is no longer there locks nothing: the file of that name is opened anew."""
    (tmp_path / ".lock-thing").unlink()
    handle = try_lock(tmp_path / ".lock-thing")
    assert handle is not None
    assert try_lock(tmp_path / ".lock-thing") is None
    os.close(handle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"process": "x", "machine": 1}', b"\xff"])
def test_a_lock_that_names_nobody(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(content)
    assert lock_owner(path) == "another process"
    path.write_text('{"process": 5, "machine": "elsewhere"}')
    assert lock_owner(path) == "process 5 on elsewhere"
