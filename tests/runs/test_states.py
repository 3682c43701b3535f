"""Every way in which a run can end: out of memory, diverged, failed, cancelled, and other processes in between."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import lorabench
from lorabench.cli.main import app
from lorabench.core.errors import InputError
from lorabench.core.out_of_memory import is_out_of_memory
from lorabench.models.base import FrozenBase
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import RecordStore, load_records
from lorabench.runs import group as pipeline_group
from lorabench.tokens.packing import PackedBatch
from lorabench.training import loop
from tests.marks import slow
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_survival import TRAINING, finish, start, wait_for

BATCH = {"learning_rate": 0.02, "batch_size": 4, "context_length": 32, "train_bytes": 6000, "precision": "fp32"}


def run_out_of_memory() -> None:
    """Asks for a petabyte, so that the error is torch's own."""
    torch.empty(2**50, dtype=torch.uint8)


def small_memory(monkeypatch: pytest.MonkeyPatch, num_rows: float, num_scored: float = math.inf) -> None:
    """More than so many rows of 32 tokens at once do not fit in training, more than so many in scoring.

    What fitted is not kept for other tests.
    """
    monkeypatch.setattr("lorabench.runs.layout.remember_rows", lambda *what: None)
    loss, token_nll = FrozenBase.loss, FrozenBase.token_nll

    def loss_that_needs_memory(base: FrozenBase, batch: PackedBatch, *rest: object) -> torch.Tensor:
        if len(batch.input_ids) > num_rows * 32:
            run_out_of_memory()
        return loss(base, batch, *rest)  # type: ignore[arg-type]

    def scores_that_need_memory(base: FrozenBase, batch: PackedBatch) -> torch.Tensor:
        if len(batch.input_ids) > num_scored * 32:
            run_out_of_memory()
        return token_nll(base, batch)

    monkeypatch.setattr(FrozenBase, "loss", loss_that_needs_memory)
    monkeypatch.setattr(FrozenBase, "token_nll", scores_that_need_memory)


def losses(out: Path, record: RunRecord) -> list[float]:
    return [float(line["loss"]) for line in RecordStore(out).metrics(record) if line["kind"] == "step"]  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", [None, slow(4), slow(64)])
def test_out_of_memory_is_retried_at_half_with_the_same_mathematics(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None
) -> None:
    path = experiment(adapter={"rank": 2}, training={**BATCH, **({"micro_batch_size": asked} if asked else {})})
    (whole,) = lorabench.run(path, tmp_path / "whole", trackers=["none"]).records
    half = experiment(adapter={"rank": 2}, training={**BATCH, "micro_batch_size": 2})
    (halves,) = lorabench.run(half, tmp_path / "halves", trackers=["none"]).records
    small_memory(monkeypatch, 2)
    path = experiment(adapter={"rank": 2}, training={**BATCH, **({"micro_batch_size": asked} if asked else {})})
    (record,) = lorabench.run(path, tmp_path / "small", trackers=["none"]).records
    assert record.status is Status.COMPLETED
    assert record.budget is not None
    assert (record.budget.micro_batch_size, record.budget.accumulation_steps) == (2, 2)
    assert any("memory ran out at a micro-batch of 4; done again at 2" in note for note in record.notes)
    assert losses(tmp_path / "small", record) == pytest.approx(losses(tmp_path / "whole", whole), rel=1e-5)
    name = "adapter/adapter_model.safetensors"
    assert record.files[name] == halves.files[name]
    assert losses(tmp_path / "small", record) == losses(tmp_path / "halves", halves)


@pytest.mark.slow
def test_a_run_that_never_fits_is_recorded_and_the_others_go_on(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, 0.5)
    training = {**BATCH, "context_length": [16, 32]}
    path = experiment(adapter={"rank": 2}, training=training)
    records = lorabench.run(path, tmp_path / "out", trackers=["none"]).records
    states = {record.spec.training.context_length: record for record in records}
    assert states[32].status is Status.OUT_OF_MEMORY
    assert str(states[32].status_reason).startswith(
        "memory ran out at a micro-batch of 4, 2, 1 and 1 with gradient checkpointing;"
    )
    assert states[16].status is Status.COMPLETED
    assert states[16].budget is not None
    assert states[16].budget.micro_batch_size == 1
    monkeypatch.undo()
    retried = lorabench.run(path, tmp_path / "out", trackers=["none"], retry_failed=True)
    assert retried.num_skipped == 1
    assert {record.status for record in retried.records} == {Status.COMPLETED}


def test_down_to_one_row_in_training_and_in_scoring(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = experiment(adapter={"rank": 2}, training={**BATCH, "train_bytes": 1000})
    (whole,) = lorabench.run(path, tmp_path / "whole", trackers=["none"]).records
    small_memory(monkeypatch, 1, 1)
    out = tmp_path / "small"
    done = CliRunner().invoke(app, ["run", str(path), "--output-dir", str(out), "--tracker", "none"])
    (record,) = load_records(out)
    assert record.status is Status.COMPLETED, done.output
    assert record.budget is not None
    assert record.budget.micro_batch_size == 1
    for tried, next_one in ((4, 2), (2, 1)):
        assert f"memory ran out at a micro-batch of {tried}; done again at {next_one} with accumulation" in record.notes
    assert [note for note in record.notes if note.startswith("memory ran out in scoring; about")]
    assert record.drift == whole.drift == ()
    for mine, theirs in ((record.base_test, whole.base_test), (record.test, whole.test)):
        assert mine is not None
        assert theirs is not None
        assert mine.num_tokens == theirs.num_tokens
        assert mine.negative_log_likelihood == pytest.approx(theirs.negative_log_likelihood, rel=1e-5)


def test_a_row_that_cannot_be_scored_ends_the_run(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, 4, 0.5)
    (record,) = lorabench.run(experiment(adapter={"rank": 2}), tmp_path / "out", trackers=["none"]).records
    assert record.status is Status.OUT_OF_MEMORY
    assert "a single row of 32 tokens; give a shorter training.context_length" in str(record.status_reason)


def test_out_of_memory_while_loading_is_that_too(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_group, "load_base", lambda *_, **__: run_out_of_memory())
    records = lorabench.run(experiment(), tmp_path / "out", trackers=["none"]).records
    assert [record.status for record in records] == [Status.OUT_OF_MEMORY] * 2
    assert "memory ran out" in str(records[0].status_reason)


def test_what_counts_as_out_of_memory() -> None:
    def chained() -> BaseException:
        try:
            try:
                run_out_of_memory()
            except RuntimeError as error:
                raise InputError("the model cannot be loaded") from error
        except InputError as outer:
            return outer
        raise AssertionError

    assert is_out_of_memory(chained())
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))
    assert is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(InputError("out of memory"))


def test_weights_that_explode_in_the_last_step_are_a_divergence(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = loop.make_optimizer

    def explosive(adapter: Any, settings: Any) -> torch.optim.Optimizer:
        optimizer = make(adapter, settings)
        num_steps = 0

        def explode(*_: Any) -> None:
            nonlocal num_steps
            num_steps += 1
            if num_steps == 25:
                adapter.parameters[0].data.fill_(float("inf"))

        optimizer.register_step_post_hook(explode)
        return optimizer

    monkeypatch.setattr(loop, "make_optimizer", explosive)
    path = experiment(adapter={"rank": 2}, training=BATCH)
    (record,) = lorabench.run(path, tmp_path / "out", trackers=["none"]).records
    assert record.budget is not None
    assert record.budget.steps == 25
    assert record.status is Status.DIVERGED
    assert record.status_reason == "the validation loss was not finite at step 25"
    assert record.validation is None


@pytest.mark.slow
def test_ctrl_c_while_loading_ends_at_once_and_loses_nothing(experiment: ExperimentWriter, tmp_path: Path) -> None:
    process = start(experiment(adapter={"rank": 2}), tmp_path / "out")
    assert wait_for(process, b"loading", 60)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert process.returncode == 1
    assert "goes on where it stopped" in output
    assert "Traceback" not in output
    assert {record.status for record in load_records(tmp_path / "out")} == {Status.CANCELLED}
    process = start(experiment(adapter={"rank": 2}), tmp_path / "out")
    finish(process)
    assert process.returncode == 0


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(experiment: ExperimentWriter, tmp_path: Path) -> None:
    process = start(experiment(adapter={"rank": 2}, training={**TRAINING, "epochs": 400}), tmp_path / "out")
    assert wait_for(process, b"training", 60)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    output = finish(process)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert {record.status for record in load_records(tmp_path / "out")} <= {Status.CANCELLED}


LONG = {**TRAINING, "epochs": 10}


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["goes on", "is killed"])
def test_a_stopped_owner_keeps_its_run_until_it_goes_on_or_dies(
    experiment: ExperimentWriter, tmp_path: Path, fate: str
) -> None:
    path, out = experiment(adapter={"rank": 2}, training=LONG), tmp_path / "out"
    owner = start(path, out, "--checkpoint-seconds", "0")
    assert wait_for(owner, b"training", 60)
    owner.send_signal(signal.SIGSTOP)
    heir = start(path, out)
    assert wait_for(heir, f"waiting for a run that process {owner.pid} is doing".encode(), 60)
    time.sleep(2.0)
    assert heir.poll() is None
    assert load_records(out) == []
    owner.send_signal(signal.SIGCONT if fate == "goes on" else signal.SIGKILL)
    outputs = [finish(process) for process in (owner, heir)]
    assert heir.returncode == 0, outputs
    (record,) = load_records(out)
    assert record.status is Status.COMPLETED
    assert sum("✓" in output for output in outputs) == 1
    assert ("✓" in outputs[0]) == (fate == "goes on")


@pytest.mark.slow
def test_ctrl_c_while_waiting_for_another_process(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path, out = experiment(adapter={"rank": 2}, training=LONG), tmp_path / "out"
    owner = start(path, out)
    assert wait_for(owner, b"training", 60)
    owner.send_signal(signal.SIGSTOP)
    waiting = start(path, out)
    assert wait_for(waiting, b"waiting for a run", 60)
    waiting.send_signal(signal.SIGINT)
    output = finish(waiting)
    assert waiting.returncode == 1
    assert "goes on where it stopped" in output
    owner.kill()
    finish(owner)


def test_what_another_process_just_tried_again_is_not_tried_a_third_time(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorabench.runs import worker
    from lorabench.runs.scheduler import Scheduler

    small_memory(monkeypatch, 0)
    path, out = experiment(), tmp_path / "out"
    lorabench.run(path, out, trackers=["none"])
    execute = worker.execute_run
    others: list[int] = []

    def execute_while_another_does_the_rest(*arguments: Any) -> Any:
        if not others:
            others.append(1)
            lorabench.run(path, out, trackers=["none"], retry_failed=True)
        return execute(*arguments)

    monkeypatch.setattr(worker, "execute_run", execute_while_another_does_the_rest)
    # The run in hand is held by its lease: the other process waits for it, so it is let go of at once here.
    monkeypatch.setattr(Scheduler, "_wait", lambda scheduler: scheduler.held.clear() or [])
    outcome = lorabench.run(path, out, trackers=["none"], retry_failed=True)
    assert sorted(record.attempt for record in outcome.records) == [2, 2]
