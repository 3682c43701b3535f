from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from lorabench.core.locks import lock_owner
from lorabench.runs.leases import try_lease

HOLD = """
import sys, time, pathlib
from lorabench.runs.leases import try_lease
with try_lease(pathlib.Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def hold_in_another_process(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "True"
    return process


def test_a_lease_is_held_by_one_and_freed_by_death(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lease"
    process = hold_in_another_process(path)
    try:
        with try_lease(path) as mine:
            assert not mine
        assert lock_owner(path) == f"process {process.pid}"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with try_lease(path) as mine:
        assert mine


def test_a_stopped_owner_keeps_its_lease_however_long_it_sleeps(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    process = hold_in_another_process(path)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        os.utime(path, (0, 0))
        with try_lease(path) as mine:
            assert not mine
    finally:
        process.kill()
        process.communicate()
