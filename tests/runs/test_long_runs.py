"""Fifty runs in one process take no more memory, files or threads than five."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from lorabench.records.store import load_records
from tests.runs.conftest import ExperimentWriter

MEASURED = """
import json, os, sys
from pathlib import Path
import lorabench
from lorabench.runs.executors import here

found = []
do = here.do_task
def measured(*arguments):
    outcome = do(*arguments)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    files = len(os.listdir("/proc/self/fd"))
    found.append([int(status["VmRSS"].split()[0]) * 1024, files, int(status["Threads"])])
    return outcome
here.do_task = measured
lorabench.run(sys.argv[1], sys.argv[2], trackers=[sys.argv[3]])
print(json.dumps(found))
"""


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("tracker", ["none", "wandb"])
def test_fifty_runs_do_not_grow(experiment: ExperimentWriter, tmp_path: Path, tracker: str) -> None:
    path = experiment(adapter={"rank": [1, 2, 3, 4, 5]}, seeds=list(range(10)))
    command = [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "out"), tracker]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"WANDB_MODE": "offline"}
    )
    measured = json.loads(done.stdout.splitlines()[-1])
    assert len(measured) == len(load_records(tmp_path / "out")) == 50
    memory, files, threads = zip(*measured, strict=True)
    print(f"{tracker}: memory after 5 runs {memory[4]:,}, after 50 {memory[49]:,}; files {files}; threads {threads}")
    assert memory[49] <= 1.1 * memory[4]
    # The middle of several: while W&B's own process begins or ends, a pipe more or less is open for a moment.
    assert statistics.median(files[40:]) <= statistics.median(files[4:14])
    # Libraries' pools start a thread when one is first needed, at most one per core; a leak would make thirty.
    assert max(threads[40:]) <= max(threads[4:14]) + (os.cpu_count() or 1)
