"""The shipped matrix over the hub: what it asks for, and that planning it asks the hub nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorabench.corpora.catalog import get_dataset
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.models.catalog import get_model
from tests.hub.conftest import ROOT
from tests.hub.server import LocalHub
from tests.hub.test_corpora import NAMES

EXPERIMENTS = ROOT / "configs" / "experiments"


@pytest.mark.parametrize(("name", "num_seeds"), [("full", 3), ("full_small", 1)])
def test_the_matrix_is_whole(name: str, num_seeds: int) -> None:
    experiment = load_experiment(EXPERIMENTS / f"{name}.yaml")
    assert experiment.models == ("gpt2", "pythia-410m", "gemma-2b")
    assert sorted(experiment.datasets) == sorted(NAMES)
    assert experiment.adapter["rank"] == [8, 16, 32]
    assert len(experiment.seeds) == num_seeds
    assert experiment.num_runs == 3 * 9 * 3 * 3 * num_seeds
    assert len((EXPERIMENTS / f"{name}.yaml").read_text().splitlines()) <= 40
    context = experiment.trainings()[0].context_length
    for model in experiment.models:
        assert get_model(model).max_context_length >= context
    smallest = min(get_dataset(dataset).approximate_bytes for dataset in experiment.datasets)
    assert experiment.trainings()[0].train_bytes < 0.5 * smallest


def test_planning_it_asks_the_hub_nothing(hub: LocalHub, tmp_path: Path) -> None:
    asked = len(hub.requests)
    plan = subprocess.run(
        [sys.executable, "-m", "lorabench", "plan", str(EXPERIMENTS / "full_small.yaml")],
        cwd=tmp_path,
        env=os.environ
        | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "LORABENCH_CACHE": str(tmp_path / "c")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert plan.returncode == 0, plan.stderr
    assert "243 runs" in plan.stdout
    assert len(plan.stdout.splitlines()) < 80, "too long to be read"
    assert len(hub.requests) == asked
    assert not (tmp_path / "hf").exists()


def test_the_whole_matrix_is_estimated_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path))
    plan = make_plan(load_experiment(EXPERIMENTS / "full.yaml"))
    values = plan.to_json()
    assert values["num_runs"] == len({run["run_id"] for run in values["runs"]}) == 729
    models, datasets = (values["parts"][kind] for kind in ("models", "datasets"))
    assert [part["name"] for part in models] == ["gpt2", "pythia-410m", "gemma-2b"]
    assert sorted(part["name"] for part in datasets) == sorted(NAMES)
    for parts in (models, datasets):
        assert sum(part["num_runs"] for part in parts) == 729
        hours = sum(part["estimated_gpu_hours"] for part in parts)
        assert hours == pytest.approx(values["estimated_gpu_seconds"] / 3600, rel=0.01)
        assert all(part["disk_bytes"] > 0 < part["download_bytes"] for part in parts)
    assert sum(part["download_bytes"] for part in models + datasets) == values["download_bytes"] < 10e9
    assert [part["download_bytes"] for part in models] == [get_model(part["name"]).download_bytes for part in models]
    assert models[0]["estimated_gpu_hours"] < models[1]["estimated_gpu_hours"] < models[2]["estimated_gpu_hours"]
    adapters = sum(4 * run["trainable_parameters"] for run in values["runs"] if run["model"] == "gemma-2b")
    assert models[2]["disk_bytes"] == adapters + models[2]["download_bytes"]
    assert [warning for warning in values["warnings"] if "flatter" in warning] == [
        "gpt2 was trained on openwebtext: its scores there flatter it",
        "pythia-410m was trained on pile-10k: its scores there flatter it",
    ]


def test_a_larger_budget_costs_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path))
    small, large = (
        make_plan(load_experiment(EXPERIMENTS / "full_small.yaml", [f"training.train_bytes={count}"])).dataset_parts
        for count in (1_000_000, 40_000_000)
    )
    for one, other in zip(small, large, strict=True):
        assert one.download_bytes <= other.download_bytes <= get_dataset(one.name).download_bytes
        assert one.disk_bytes < other.disk_bytes or one.name in ("ag-news", "pile-10k")
        assert one.estimated_gpu_hours < other.estimated_gpu_hours
