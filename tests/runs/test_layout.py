"""Runs that would not fit: what they do about it changes no figure, and stays the same when they are gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lorabench
from lorabench.core.errors import CancelledError
from lorabench.fast.forward import Uploaded
from lorabench.models.base import FrozenBase
from lorabench.records.schema import Status
from lorabench.runs import layout
from lorabench.runs.training import TrainingReport
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_states import BATCH, losses, run_out_of_memory

SHORT = {**BATCH, "train_bytes": 1200, "micro_batch_size": 4}
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "memory_for_this_process", lambda device: 1)


@pytest.mark.parametrize("adapter", [{"rank": 2}, {"rank": 2, "method": "dora", "dropout": 0.1}])
def test_what_would_not_fit_is_checkpointed_and_comes_out_the_same(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: dict[str, object]
) -> None:
    path = experiment(adapter=adapter, training=SHORT)
    (plain,) = lorabench.run(path, tmp_path / "plain", trackers=["none"]).records
    monkeypatch.setattr(layout, "memory_for_this_process", lambda device: 1)
    (again,) = lorabench.run(path, tmp_path / "again", trackers=["none"]).records
    assert plain.run_id == again.run_id
    assert plain.budget is not None
    assert again.budget is not None
    assert (plain.budget.gradient_checkpointing, again.budget.gradient_checkpointing) == (False, True)
    assert again.budget.micro_batch_size == 4, "it was asked for"
    assert not any("gradient checkpointing" in note for note in plain.notes)
    assert [note for note in again.notes if note.startswith("a micro-batch of 4 with gradient checkpointing: about ")]
    assert losses(tmp_path / "plain", plain) == losses(tmp_path / "again", again)
    assert plain.files[WEIGHTS] == again.files[WEIGHTS]


@pytest.mark.slow
@pytest.mark.usefixtures("no_memory")
def test_a_run_goes_on_as_it_began(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = experiment(adapter={"rank": 2}, training={**SHORT, "micro_batch_size": None})
    (whole,) = lorabench.run(path, tmp_path / "whole", trackers=["none"]).records
    on_step, done = TrainingReport._on_step, list[int]()

    def stop_after_three(report: TrainingReport, values: dict[str, object]) -> None:
        on_step(report, values)
        done.append(1)
        if len(done) == 3:
            raise CancelledError("stopped by the test")

    monkeypatch.setattr(TrainingReport, "_on_step", stop_after_three)
    options = {"trackers": ["none"], "checkpoint_seconds": 0.0}
    (stopped,) = lorabench.run(path, tmp_path / "parts", **options).records  # type: ignore[arg-type]
    assert stopped.status is Status.CANCELLED
    monkeypatch.setattr(layout, "memory_for_this_process", lambda device: 1 << 50)
    (record,) = lorabench.run(path, tmp_path / "parts", **options).records  # type: ignore[arg-type]
    for one in (whole, record):
        assert one.budget is not None
        assert (one.budget.micro_batch_size, one.budget.gradient_checkpointing) == (1, True)
    assert record.num_resumed == 1
    assert record.notes == whole.notes
    assert record.files[WEIGHTS] == whole.files[WEIGHTS]


def test_what_fitted_is_where_the_next_run_begins(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered: list[int] = []
    monkeypatch.setattr(layout, "remember_rows", lambda spec, device, memory, rows: remembered.append(rows))
    monkeypatch.setattr(layout, "rows_at_most", lambda *what: remembered[-1] if remembered else 4)
    loss = FrozenBase.loss

    def loss_of_two_rows(base: FrozenBase, batch: Uploaded, *rest: object) -> torch.Tensor:
        if len(batch.input_ids) > 64:
            run_out_of_memory()
        return loss(base, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FrozenBase, "loss", loss_of_two_rows)
    path = experiment(adapter={"rank": 2}, training={**SHORT, "micro_batch_size": None}, seeds=[0, 1])
    first, second = lorabench.run(path, tmp_path / "out", trackers=["none"]).records
    assert remembered == [2]
    assert [any("memory ran out" in note for note in one.notes) for one in (first, second)] == [True, False]
    assert second.budget is not None
    assert second.budget.micro_batch_size == 2
