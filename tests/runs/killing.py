"""Runs an experiment again and again and kills it, by SIGKILL, in the middle of what it does.

A process of its own, which has imported what runs import and forks a child for each attempt. A child dies at a random
moment, by its parent's hand, or by its own just before the n-th time that it would change a file, so that every step
of writing a checkpoint, an adapter, a record and a table is hit. Usage: killing.py EXPERIMENT OUTPUT NUM_KILLS SEED
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lorabench
from lorabench.records.schema import Status
from lorabench.records.store import RecordStore
from lorabench.report.page import environment

IMPORTED_BY_RUNS = (
    "lorabench.deploy.recommended",
    "lorabench.report.sections",
    "lorabench.runs.executors.here",
    "lorabench.runs.scheduler",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "pandas",
    "peft",
    "transformers.generation",
    "transformers.models.llama.modeling_llama",
)
CHANGES = ("fsync", "rename", "replace", "unlink", "mkdir", "rmdir", "ftruncate")


def be_ready_to_fork() -> None:
    """Have what every child would spend more than twice as long on as on its run: imports, compiled templates."""
    for name in IMPORTED_BY_RUNS:
        importlib.import_module(name)
    environment()
    gc.collect()
    gc.freeze()


def die_at_change(number: int) -> None:
    """From now on, SIGKILL this process just before it changes files for the `number`-th time."""
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))


def attempt(experiment: Path, output: Path, *, seconds: float | None = None, change: int | None = None) -> bool:
    """One child that does what is missing of an experiment; returns whether it was killed."""

    def run() -> None:
        lorabench.run(experiment, output, trackers=["none"], checkpoint_seconds=0.0)

    return kill_at(change, run, seconds)


def kill_at(change: int | None, work: Callable[[], object], seconds: float | None = None) -> bool:
    """A child that does `work` and dies before its `change`-th change of a file, or after so long; whether it died."""
    child = os.fork()
    if child == 0:
        if change is not None:
            die_at_change(change)
        try:
            work()
        finally:
            os._exit(0)
    deadline = time.monotonic() + (seconds if seconds is not None else 600.0)
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.WIFSIGNALED(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main() -> None:
    experiment, output = Path(sys.argv[1]), Path(sys.argv[2])
    num_kills, moments = int(sys.argv[3]), random.Random(int(sys.argv[4]))
    store = RecordStore(output)
    be_ready_to_fork()
    killed = 0
    while killed < num_kills:
        if killed % 2:
            killed += attempt(experiment, output, seconds=moments.uniform(0.0, 2.0))
        else:
            killed += attempt(experiment, output, change=int(moments.triangular(1, 160, 1)))
        done = [record.run_id for record in store.read_all()[0] if record.status is Status.COMPLETED]
        if len(done) == len(lorabench.plan(experiment).runs):  # give the next kills something to hit
            for run_id in moments.sample(done, len(done) // 2):
                (store.run_dir(run_id) / "record.json").unlink()
    attempt(experiment, output)
    print(f"killed {killed} times")


if __name__ == "__main__":
    main()
