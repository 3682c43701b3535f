"""Runs side by side: each trains what it trains alone, and a kill takes nothing from any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lorabench
from lorabench.core.device import choose_device
from lorabench.core.errors import InputError
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import load_records
from lorabench.runs.place import parse_side_by_side
from lorabench.runs.probe import Probe
from lorabench.runs.task import RunOptions, make_tasks
from lorabench.runs.view import RunView
from tests.fast.fast_cases import multiplies_itself
from tests.runs.conftest import ExperimentWriter
from tests.runs.killing import kill_at

VARIANTS = [{"rank": 2, "target_modules": "attention"}, {"rank": 4, "dropout": 0.1}, {"method": "dora", "rank": 2}]


SMALL: dict[str, dict[str, Any]] = {
    "training": {
        "learning_rate": 0.02,
        "batch_size": 4,
        "context_length": 32,
        "train_bytes": 3000,
        "precision": "fp32",
    },
    "evaluation": {"validation_bytes": 600, "test_bytes": 600, "times": 1, "samples": 0},
}


def done(experiment: Path, output: Path, side_by_side: int | str) -> dict[str, RunRecord]:
    lorabench.run(experiment, output, trackers=["none"], checkpoint_seconds=0.0, side_by_side=side_by_side)
    records = {record.run_id: record for record in load_records(output)}
    assert {record.status for record in records.values()} == {Status.COMPLETED}
    return records


def steps_of(output: Path, run_id: str) -> list[dict[str, Any]]:
    lines = (output / "runs" / run_id / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [values for line in lines if "gradient_norm" in (values := json.loads(line))]


def adapter_of(output: Path, run_id: str) -> dict[str, Any]:
    return load_file(output / "runs" / run_id / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("choice", ["0", "65", "-2", "all", "1.5", ""])
def test_what_is_not_accepted_is_named(choice: str) -> None:
    with pytest.raises(InputError, match="a number from 1 to 64, auto or off"):
        parse_side_by_side(choice)


def test_runs_in_other_processes_are_not_side_by_side(experiment: ExperimentWriter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave out --devices"):
        lorabench.run(experiment(), tmp_path / "out", trackers=["none"], devices="cpu:2", side_by_side="auto")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("seconds", "best", "said"),
    [
        (
            {1: 1.0, 2: 0.8, 4: 0.7, 8: 0.75},
            4,
            "0.80, 0.70, 0.75 of the time that a token takes alone: 4 runs at once",
        ),
        ({1: 1.0, 2: 0.97, 4: 1.04}, 1, "0.97, 1.04 of the time that a token takes alone: that does not pay"),
    ],
)
def test_what_does_not_pay_is_off_and_said(
    experiment: ExperimentWriter, tmp_path: Path, seconds: dict[int, float], best: int, said: str
) -> None:
    plan = make_plan(load_experiment(experiment()), choose_device("cpu"))
    task = next(iter(make_tasks(plan, RunOptions(output_dir=tmp_path, device="cpu")).values()))
    assert Probe(seconds).best == best
    assert said in Probe(seconds).sentence(task)


@pytest.mark.slow
def test_runs_side_by_side_are_what_they_are_alone(experiment: ExperimentWriter, tmp_path: Path) -> None:
    file = experiment(adapters=VARIANTS, adapter={}, seeds=[0], **SMALL)
    alone, beside = done(file, tmp_path / "alone", 1), done(file, tmp_path / "beside", 3)
    assert alone.keys() == beside.keys()
    assert len(alone) == 3
    for run_id, record in beside.items():
        is_shared = record.spec.adapter.method == "lora"
        assert any("side by side" in note for note in record.notes) == is_shared
        expected, found = (steps_of(tmp_path / name, run_id) for name in ("alone", "beside"))
        assert [step["loss"] for step in found] == pytest.approx([step["loss"] for step in expected], rel=1e-5)
        weights = adapter_of(tmp_path / "beside", run_id)
        for name, tensor in adapter_of(tmp_path / "alone", run_id).items():
            assert weights[name].numpy() == pytest.approx(tensor.numpy(), abs=1e-5)
        assert record.test is not None
        assert record.speed is not None
        own = sum(step["seconds"] for step in found)
        assert record.speed.train_seconds == pytest.approx(own)
        assert own < record.speed.total_seconds


@pytest.mark.slow
def test_a_run_that_diverges_does_not_stop_those_beside_it(experiment: ExperimentWriter, tmp_path: Path) -> None:
    unsteady = {"batch_size": 1, "max_grad_norm": 1e6, "schedule": "constant", "weight_decay": 10.0}
    training = SMALL["training"] | unsteady | {"learning_rate": [0.02, 10.0]}
    file = experiment(adapter={"rank": 2}, seeds=[0], **(SMALL | {"training": training}))
    outcome = lorabench.run(file, tmp_path / "out", trackers=["none"], side_by_side=2)
    records = {record.spec.training.learning_rate: record for record in outcome.records}
    assert {rate: record.status for rate, record in records.items()} == {0.02: Status.COMPLETED, 10.0: Status.DIVERGED}
    assert any("side by side" in note for note in records[0.02].notes)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_runs_side_by_side_go_on_after_a_kill(experiment: ExperimentWriter, tmp_path: Path, precision: str) -> None:
    """They go on from steps of their own. Our own products of bfloat16 do not depend on the rows beside them."""
    if precision == "bf16" and not multiplies_itself():
        pytest.skip("torch's matrix library multiplies bfloat16 here, in another order with other rows")
    training = SMALL["training"] | {"precision": precision}
    file = experiment(adapters=VARIANTS[:2], adapter={}, seeds=[0], **(SMALL | {"training": training}))

    def run() -> None:
        done(file, tmp_path / "parts", 2)

    assert kill_at(150, run)
    parts = done(file, tmp_path / "parts", 2)
    whole = done(file, tmp_path / "whole", 2)
    assert any(record.num_resumed for record in parts.values())
    for run_id in whole:
        found, expected = (adapter_of(tmp_path / name, run_id) for name in ("parts", "whole"))
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            if precision == "bf16":
                assert torch.equal(found[name], tensor)
            else:
                torch.testing.assert_close(found[name], tensor, rtol=0.0, atol=1e-5)


@pytest.mark.slow
def test_how_many_pay_is_measured_and_said(experiment: ExperimentWriter, tmp_path: Path) -> None:
    """Whatever comes out on a tiny model, the runs complete, and what was measured is among the messages."""
    messages: list[str] = []

    class View(RunView):
        def message(self, text: str, /) -> None:
            messages.append(text)

    lorabench.run(experiment(), tmp_path / "out", trackers=["none"], side_by_side="auto", view=View())
    (said,) = [message for message in messages if message.startswith("side by side")]
    assert "of the time that a token takes alone" in said
    records = load_records(tmp_path / "out")
    assert {record.status for record in records} == {Status.COMPLETED}
    noted = [any("side by side" in note for note in record.notes) for record in records]
    assert set(noted) == {"at once" in said}
