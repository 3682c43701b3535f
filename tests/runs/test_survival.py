"""Real processes, really killed: the results are those of a run that nobody disturbed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import lorabench
from lorabench.core.storage import sha256_file
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import RecordStore, load_records

ExperimentWriter = Callable[..., Path]
TRAINING = {
    "learning_rate": 0.02,
    "batch_size": 2,
    "context_length": 32,
    "train_bytes": 6000,
    "epochs": 2,
    "precision": "fp32",
}


def start(experiment: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lorabench", "run", str(experiment), "--output-dir", str(out), "--tracker", "none"]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes]) -> str:
    output, _ = process.communicate(timeout=300)
    return output.decode()


def wait_for(process: subprocess.Popen[bytes], text: bytes, seconds: float) -> bool:
    """Whether the process printed `text` within so many seconds."""
    assert process.stdout is not None
    deadline, seen = time.monotonic() + seconds, b""
    while time.monotonic() < deadline and text not in seen:
        ready, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        if ready:
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            seen += chunk
    return text in seen


def results(out: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that must not depend on how often a run was disturbed."""
    store = RecordStore(out)
    found = {}
    for record in load_records(out):
        adapter = sha256_file(store.run_dir(record.run_id) / "adapter" / "adapter_model.safetensors")
        folder = store.run_dir(record.run_id) / "documents"
        documents = [pd.read_parquet(folder / f"{split}.parquet") for split in ("validation", "test")]
        losses = [(line["step"], line["loss"]) for line in store.metrics(record) if line["kind"] == "step"]
        found[record.run_id] = (
            record.status,
            adapter,
            record.base_validation,
            record.validation,
            record.test,
            record.evaluations,
            record.last_training_loss,
            losses,
            [table.to_csv() for table in documents],
        )
    return found


@pytest.mark.slow
def test_thirty_kills_change_nothing(experiment: ExperimentWriter, tmp_path: Path) -> None:
    training = {**TRAINING, "batch_size": 4, "micro_batch_size": 2, "epochs": 1, "train_bytes": 3000}
    path = experiment(adapter={"rank": 2, "dropout": [0.0, 0.1]}, training=training, seeds=[0, 1])
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    assert lorabench.run(path, quiet, trackers=["none"]).exit_code == 0
    command = [sys.executable, "-m", "tests.runs.killing", str(path), str(disturbed), "30", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550)
    assert "killed 30 times" in done.stdout, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert results(disturbed) == results(quiet)
    for run_id in results(quiet):
        kinds = [
            [(line["kind"], line["step"]) for line in store.metrics(store.get(run_id))]
            for store in (RecordStore(disturbed), RecordStore(quiet))
        ]
        assert kinds[0] == kinds[1]
        names = {item.name for item in (disturbed / "runs" / run_id).iterdir()}
        assert names == {"record.json", "metrics.jsonl", "adapter", "documents", "lease"}
    table = (disturbed / "results" / "benchmark_results.csv").read_text(encoding="utf-8")
    assert len(table.splitlines()) == 5
    leftovers = [item.name for item in disturbed.rglob(".writing-*")]
    assert len(leftovers) <= 3, leftovers


def completed(records: list[RunRecord]) -> int:
    return sum(record.status is Status.COMPLETED for record in records)


@pytest.mark.slow
def test_four_processes_share_twenty_runs(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path = experiment(adapter={"rank": [1, 2, 3, 4, 5]}, seeds=[0, 1, 2, 3])
    out = tmp_path / "out"
    processes = [start(path, out) for _ in range(4)]
    outputs = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], "\n".join(outputs)
    records = load_records(out)
    assert completed(records) == 20
    assert all(record.attempt == 1 and record.num_resumed == 0 for record in records)
    finished = [line for output in outputs for line in output.splitlines() if line.startswith("✓")]
    assert len(finished) == 20
    rows = (out / "results" / "benchmark_results.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 21


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path = experiment(adapter={"rank": 2}, training={**TRAINING, "epochs": 15})
    out = tmp_path / "out"
    process = start(path, out)
    assert wait_for(process, b"training", 60)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert process.returncode == 1
    assert "goes on where it stopped" in output
    assert "Traceback" not in output
    (record,) = load_records(out)
    assert record.status is Status.CANCELLED
    assert "stopped after step" in str(record.status_reason)
    assert list((out / "runs" / record.run_id / "checkpoints").glob("step-*"))
    process = start(path, out)
    finish(process)
    assert process.returncode == 0
    (record,) = load_records(out)
    assert record.status is Status.COMPLETED
    assert record.num_resumed == 1
    whole = tmp_path / "whole"
    finish(start(path, whole))
    assert results(out) == results(whole)
