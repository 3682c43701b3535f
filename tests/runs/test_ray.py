"""A Ray cluster of two nodes without a common folder: what they bring back is what this machine would have made."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lorabench
from lorabench.records.schema import Status
from lorabench.records.store import RecordStore, load_records
from tests.runs.conftest import ExperimentWriter, new_cache
from tests.runs.test_search import decisions, write
from tests.runs.test_survival import results

NUM_RUNS = 20
pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Its head does no runs; each node has its own home, cache and working folder."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for name in ("one", "other"):
        folder = tmp_path / name
        new_cache(folder / "cache")
        environment = {"LORABENCH_CACHE": folder / "cache", "HOME": folder, "HF_HOME": folder / "hub"}
        made.add_node(num_cpus=1, env_vars={key: str(value) for key, value in environment.items()})
    yield made
    made.shutdown()


def start(experiment: Path, out: Path, address: str) -> subprocess.Popen[str]:
    """The command, in a process of its own, with a key in its environment that must go nowhere."""
    command = [sys.executable, "-m", "lorabench", "run", str(experiment), "--output-dir", str(out), "--tracker", "none"]
    return subprocess.Popen(
        [*command, "--executor", "ray", "--address", address, "--device", "cpu"],
        env=os.environ | {"HF_TOKEN": "hf_verysecretkey0123456789"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.1)


def test_twenty_runs_on_two_nodes_of_which_one_is_lost(
    experiment: ExperimentWriter, tmp_path: Path, cluster: Any
) -> None:
    adapter = {"rank": [2, 4], "dropout": 0.1}
    training = {"learning_rate": 0.02, "batch_size": 4, "context_length": 32, "train_bytes": 3000, "precision": "fp32"}
    evaluation = {"validation_bytes": 600, "test_bytes": 600, "times": 1, "samples": 0}
    seeds = list(range(NUM_RUNS // 2))
    path = experiment(adapter=adapter, training=training, evaluation=evaluation, seeds=seeds)
    out = tmp_path / "ray"
    process = start(path, out, cluster.address)
    wait_until(lambda: len([*out.glob("runs/*/record.json")]) >= 4, process)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert f"{NUM_RUNS} of {NUM_RUNS} runs completed" in said
    store = RecordStore(out)
    assert all(not store.damaged_files(record) for record in load_records(out))
    lorabench.run(path, tmp_path / "here", trackers=["none"])
    assert results(out) == results(tmp_path / "here")
    written = [file for file in out.rglob("*") if file.is_file()]
    assert not any(b"hf_verysecretkey0123456789" in file.read_bytes() for file in written)
    assert [*(out / "runs").glob(".*")] == []


def test_a_search_pauses_and_promotes_over_two_nodes(
    experiment: ExperimentWriter, tmp_path: Path, cluster: Any
) -> None:
    search = {"strategy": "halving", "rungs": ["1/3"], "eta": 6, "keep": 1, "seeds_at_the_end": 1}
    path = write(experiment, adapter={"rank": [1, 4], "dropout": 0.1}, search=search)
    process = start(path, tmp_path / "ray", cluster.address)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    lorabench.run(path, tmp_path / "here", trackers=["none"])
    assert decisions(tmp_path / "ray") == decisions(tmp_path / "here")
    assert sum(record.status is Status.STOPPED_EARLY for record in load_records(tmp_path / "ray")) == 5
