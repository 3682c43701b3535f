"""Estimates against what the runs then take: three unlike experiments, planned and run as a user does it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorabench.core.device import choose_device
from lorabench.experiment.calibration import calibration_path
from lorabench.fast.choice import kernels_for
from lorabench.samplepack.stories import write_stories

FACTOR = 1.5
FIRST_FACTOR = 2.0
"""For the very first plan on a machine, which knows nothing but a probe of 50 ms."""
FIRST_START_FACTOR = 3.0
"""For the very first plan of a command that is mostly Python's start: it took 4 s on one machine, 18 s on another, and
no probe tells. The next plan knows it."""
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "many small runs": {
        "models": ["gpt2-mini"],
        "adapter": {"method": "lora", "rank": [2, 4, 8], "target_modules": "all-linear"},
        "training": {"learning_rate": 1e-3, "batch_size": 8, "context_length": 64, "train_bytes": 60_000},
        "evaluation": {"validation_bytes": 8_000, "test_bytes": 4_000, "times": 2, "samples": 1},
    },
    "one run of a larger model": {
        "models": ["gpt2"],
        "adapter": {"method": "lora", "rank": 16, "target_modules": "attention"},
        "training": {"learning_rate": 1e-3, "batch_size": 4, "context_length": 256, "train_bytes": 16_000},
        "evaluation": {"validation_bytes": 10_000, "test_bytes": 4_000, "times": 1, "samples": 0},
    },
    "mostly scoring, without the fast path": {
        "models": ["pythia-mini"],
        "adapter": {"method": "dora", "rank": 4, "dropout": 0.1, "target_modules": "all-linear"},
        "training": {"learning_rate": 1e-3, "batch_size": 2, "context_length": 128, "train_bytes": 10_000},
        "evaluation": {"validation_bytes": 150_000, "test_bytes": 150_000, "times": 2, "samples": 0},
    },
}


@dataclass(frozen=True)
class Outcome:
    """Planned and taken: seconds of the whole command, bytes of the largest run."""

    seconds: tuple[float, float]
    memory: tuple[float, float]


def plan_and_run(path: Path, seed: int) -> Outcome:
    command = [sys.executable, "-m", "lorabench"]
    changes = ["--set", f"seeds=[{seed}]"]
    planned = subprocess.run(
        [*command, "plan", str(path), *changes, "--json"], capture_output=True, text=True, check=True
    )
    plan = json.loads(planned.stdout)
    folder = path.parent / f"outputs-{seed}"
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "run", str(path), *changes, "--output-dir", str(folder)], capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    records = [json.loads(record.read_bytes()) for record in folder.rglob("record.json")]
    assert len(records) == plan["num_runs"]
    planned_bytes = max(run["estimated_memory_bytes"] for group in plan["groups"] for run in group["runs"])
    return Outcome(
        (plan["estimated_seconds"], took),
        (planned_bytes, max(record["speed"]["peak_memory_bytes"] for record in records)),
    )


def ratio(pair: tuple[float, float]) -> float:
    return max(pair) / min(pair)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_estimates_hold(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")  # as a user runs it
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from compare_with_peer import save_random

    settings = EXPERIMENTS[name]
    model = save_random(settings["models"][0], tmp_path / "model")
    text = tmp_path / "stories.txt"
    text.write_text("\n\n".join(write_stories(700)), encoding="utf-8")
    experiment = {
        "name": "planned",
        "question": "How long?",
        **settings,
        "models": [str(model)],
        "datasets": [str(text)],
    }
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(experiment), encoding="utf-8")
    kernels_for("cpu")  # compiled once per machine: not part of an estimate
    calibration_path(choose_device("cpu")).unlink(missing_ok=True)
    first, second = plan_and_run(path, 0), plan_and_run(path, 1)
    assert ratio(first.seconds) < (FIRST_START_FACTOR if name == "many small runs" else FIRST_FACTOR), first
    assert ratio(second.seconds) < FACTOR, second
    assert ratio(first.memory) < FACTOR, first
    assert ratio(second.memory) < FACTOR, second
