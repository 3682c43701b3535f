"""Searches over rungs: what is trained, what is stopped and why; the finished runs are those that nobody searched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import lorabench
from lorabench.core.storage import sha256_file
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore, load_records
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_survival import results

ADAPTER = {"rank": [1, 2, 4], "dropout": 0.1}
TRAINING = {
    "learning_rate": [0.0001, 0.01, 0.03],
    "batch_size": 2,
    "context_length": 32,
    "train_bytes": 8000,
    "precision": "fp32",
}
SEARCH = {"strategy": "halving", "rungs": ["1/9", "1/3"], "seeds_at_the_end": 2}


def write(experiment: ExperimentWriter, **changes: Any) -> Path:
    sections = {"adapter": ADAPTER, "training": TRAINING, "search": SEARCH}
    evaluation = {"validation_bytes": 1200, "test_bytes": 1200, "samples": 0}
    return experiment(**{**sections, "evaluation": evaluation, **changes})


def by_status(out: Path) -> dict[str, list[RunRecord]]:
    found: dict[str, list[RunRecord]] = {}
    for record in load_records(out):
        found.setdefault(record.status.value, []).append(record)
    return found


def decisions(out: Path) -> dict[str, tuple[Any, ...]]:
    """All that a search has found, which must not depend on how often it was disturbed or by how many it is done."""
    store = RecordStore(out)
    return {
        record.run_id: (
            record.status,
            record.status_reason,
            record.validation,
            record.rungs,
            record.evaluations,
            sha256_file(store.run_dir(record.run_id) / "adapter" / "adapter_model.safetensors"),
        )
        for record in load_records(out)
    }


def test_halving_trains_few_to_the_end_and_says_why(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path, out = write(experiment), tmp_path / "out"
    outcome = lorabench.run(path, out, trackers=["none"])
    assert outcome.exit_code == 0
    found = by_status(out)
    assert (len(found["completed"]), len(found["stopped_early"])) == (2, 8)
    assert outcome.num_runs == 10
    assert {record.spec.seed for record in found["completed"]} == {0, 1}
    reached = sorted(len(record.rungs) for record in found["stopped_early"])
    assert reached == [1] * 6 + [2] * 2
    winner = next(record for record in found["completed"] if record.spec.seed == 0)
    assert len(winner.rungs) == 2
    for record in found["stopped_early"]:
        assert record.status_reason is not None
        assert f"stopped at rung {len(record.rungs)} of 2" in record.status_reason
        assert record.validation == record.rungs[-1].validation
        assert (record.test, record.num_test_scorings) == (None, 0)
        assert RecordStore(out).documents(record, "validation", record.rungs[-1].validation) is not None
        better = [
            other for other in load_records(out) if len(other.rungs) > len(record.rungs) or other.spec == winner.spec
        ]
        worst = max(other.rungs[len(record.rungs) - 1].validation.bits_per_byte for other in better if other.rungs)
        assert record.validation.bits_per_byte >= worst
    again = lorabench.run(path, out, trackers=["none"])
    assert (again.num_skipped, again.exit_code) == (10, 0)
    assert not outcome.problems


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_what_is_finished_is_the_run_that_nobody_searched(
    experiment: ExperimentWriter, tmp_path: Path, schedule: str
) -> None:
    training = {**TRAINING, "learning_rate": [0.01, 0.03], "schedule": schedule, "warmup_ratio": 0.05}
    search = {**SEARCH, "seeds_at_the_end": 1}
    path = write(experiment, adapter={"rank": 2, "dropout": 0.1}, training=training, search=search)
    lorabench.run(path, tmp_path / "searched", trackers=["none"])
    (winner,) = by_status(tmp_path / "searched")["completed"]
    assert len(winner.rungs) == 2
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values.pop("search")
    values["training"]["learning_rate"] = winner.spec.training.learning_rate
    values["evaluation"]["times"] = 1
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    lorabench.run(path, tmp_path / "alone", trackers=["none"])
    for record in by_status(tmp_path / "searched")["stopped_early"]:
        shutil.rmtree(tmp_path / "searched" / "runs" / record.run_id)
    assert results(tmp_path / "alone") == results(tmp_path / "searched")


@pytest.mark.slow
def test_a_rung_is_what_a_run_of_its_length_scores(experiment: ExperimentWriter, tmp_path: Path) -> None:
    """One epoch of a run of two ends where a rung at its half does: the same text, the schedule at its end."""
    training = {**TRAINING, "learning_rate": [0.01, 0.03], "epochs": 2, "warmup_ratio": 0.0}
    search = {"strategy": "halving", "rungs": [0.5], "seeds_at_the_end": 1}
    path = write(experiment, adapter={"rank": 2}, training=training, search=search)
    lorabench.run(path, tmp_path / "searched", trackers=["none"])
    searched = load_records(tmp_path / "searched")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values.pop("search")
    values["training"] |= {"epochs": 1, "schedule": "wsd"}
    values["evaluation"]["times"] = 1
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    lorabench.run(path, tmp_path / "alone", trackers=["none"])
    alone = {record.spec.training.learning_rate: record.validation for record in load_records(tmp_path / "alone")}
    assert {record.spec.training.learning_rate: record.rungs[0].validation for record in searched} == alone
