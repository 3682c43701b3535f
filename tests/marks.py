"""Marks on tests, and what a test does that this machine or this user cannot run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest


def slow(*values: Any) -> Any:
    """Values of a parametrised test that are run only by `scripts/test.sh --all`: others like them are run always."""
    return pytest.param(*values, marks=pytest.mark.slow)


def require_root(what: str) -> None:
    """Skip the test of a user who is not root; where `LORABENCH_TESTS=complete`, as in `.ci/run`, fail it instead."""
    if os.geteuid() != 0:
        _cannot(f"{what} needs root")


def mount(folder: Path, options: str) -> None:
    """A file system of its own at `folder`, in memory. Whoever may not mount one skips the test (`require_root`)."""
    require_root("mounting a small disk")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "permission denied" in done.stderr:  # root in a container that may not
        _cannot("mounting a small disk is not allowed here")
    assert done.returncode == 0, done.stderr


def remount(folder: Path, options: str) -> None:
    """Give a mounted file system other options, such as another size or `ro`."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def unmount(folder: Path) -> None:
    """Take a mounted file system away, whoever still has files open there."""
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("LORABENCH_TESTS") == "complete":
        pytest.fail(f"{reason}, and LORABENCH_TESTS=complete allows no such skip")
    pytest.skip(reason)
