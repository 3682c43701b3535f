"""Runs as values: tasks that travel to another process, and runs that pause and go on or are stopped early."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import lorabench
from lorabench.core.device import choose_device
from lorabench.core.errors import ConfigError
from lorabench.experiment.plan import PlannedRun, make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.records.schema import Status
from lorabench.records.store import RecordStore, load_records
from lorabench.runs.strategy import STRATEGIES, Request, Standing
from lorabench.runs.task import RunOptions, RunTask, TaskOutcome, TaskState, make_tasks
from tests.runs.conftest import ExperimentWriter
from tests.runs.halves import Halves
from tests.runs.test_survival import results

DROPOUT = {"rank": [2, 4], "dropout": 0.1}


def tasks(path: Path, out: Path) -> list[RunTask]:
    plan = make_plan(load_experiment(path), choose_device("cpu"))
    return list(make_tasks(plan, RunOptions(output_dir=out, device="cpu")).values())


def do_in_another_process(task: RunTask, folder: Path) -> TaskOutcome:
    """In another folder, so that nothing depends on where the command was given."""
    command = [sys.executable, "-m", "lorabench.runs.worker"]
    folder.mkdir(exist_ok=True)
    done = subprocess.run(command, input=task.model_dump_json(), capture_output=True, text=True, check=True, cwd=folder)
    return TaskOutcome.model_validate_json(done.stdout)


def test_a_task_is_a_value(experiment: ExperimentWriter, tmp_path: Path) -> None:
    for task in tasks(experiment(), tmp_path / "out"):
        assert RunTask.model_validate_json(task.model_dump_json()) == task
        later = task.model_copy(update={"until_share": 0.5, "stop_reason": "enough"})
        assert RunTask.model_validate_json(later.model_dump_json()) == later != task


@pytest.mark.slow
def test_a_task_done_in_another_process_gives_the_same_record(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused there, gone on with in a second process, although the experiment's paths were relative."""
    path = experiment(adapter={"rank": 2, "dropout": 0.1})
    lorabench.run(path, tmp_path / "here", trackers=["none"])
    monkeypatch.chdir(tmp_path)
    (task,) = tasks(path, tmp_path / "there")
    half = do_in_another_process(task.model_copy(update={"until_share": 0.5}), tmp_path / "elsewhere")
    assert half.state is TaskState.PAUSED
    assert (half.steps_done, len(half.evaluations)) == (round(half.num_steps / 2), 1)
    assert load_records(tmp_path / "there") == []
    done = do_in_another_process(task, tmp_path / "elsewhere")
    assert done.state is TaskState.DONE
    assert done.record == RecordStore(tmp_path / "there").get(task.run_id)
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert do_in_another_process(task, tmp_path / "elsewhere").state is TaskState.UNNEEDED


@pytest.fixture
def halves() -> Iterator[type[Halves]]:
    STRATEGIES.add("halves", Halves)
    yield Halves
    STRATEGIES.remove("halves")
    Halves.told.clear()


@pytest.mark.slow
def test_runs_that_paused_are_the_runs_that_never_did(
    experiment: ExperimentWriter, tmp_path: Path, halves: type[Halves]
) -> None:
    whole, paused = tmp_path / "whole", tmp_path / "paused"
    assert lorabench.run(experiment(adapter=DROPOUT), whole, trackers=["none"]).exit_code == 0
    outcome = lorabench.run(experiment(adapter=DROPOUT), paused, trackers=["none"], strategy="halves")
    assert outcome.exit_code == 0
    assert outcome.counts.completed_now == 2
    assert results(paused) == results(whole)
    assert [record.num_resumed for record in outcome.records] == [1, 1]
    assert [record.attempt for record in outcome.records] == [1, 1]
    assert [standing.status for standing in halves.told] == [None, None, Status.COMPLETED, Status.COMPLETED]
    for half, end in zip(halves.told[:2], halves.told[2:], strict=True):
        assert half.evaluations == end.evaluations[:1]
        assert half.evaluations[-1].step == half.steps_done < half.num_steps == end.steps_done
    for run_id in results(whole):
        lines = [RecordStore(out).metrics(RecordStore(out).get(run_id)) for out in (paused, whole)]
        assert [(line["kind"], line["step"]) for line in lines[0]] == [
            (line["kind"], line["step"]) for line in lines[1]
        ]
        assert not (paused / "runs" / run_id / "checkpoints").exists()
    assert lorabench.run(experiment(adapter=DROPOUT), paused, trackers=["none"], strategy="halves").num_skipped == 2


def test_a_run_that_is_stopped_early_keeps_what_it_learned_and_never_sees_test(
    experiment: ExperimentWriter, tmp_path: Path
) -> None:
    class OnlyHalf:
        def __init__(self, runs: Sequence[PlannedRun]) -> None:
            self.requests = [Request(run.run_id, until_share=0.5) for run in runs]

        def tell(self, standing: Standing) -> None:
            self.requests = [request for request in self.requests if request.run_id != standing.run_id]
            if standing.status is None:
                self.requests.append(Request(standing.run_id, stop_reason="half is enough"))

        def ask(self) -> Request | None:
            return self.requests.pop(0) if self.requests else None

    STRATEGIES.add("only_half", OnlyHalf)
    try:
        path, out = experiment(adapter={"rank": 2}), tmp_path / "out"
        outcome = lorabench.run(path, out, trackers=["none"], strategy="only_half")
        again = lorabench.run(path, out, trackers=["none"], strategy="only_half")
    finally:
        STRATEGIES.remove("only_half")
    assert outcome.exit_code == 0
    (record,) = outcome.records
    assert (record.status, record.status_reason) == (Status.STOPPED_EARLY, "half is enough")
    assert (record.test, record.num_test_scorings) == (None, 0)
    assert [evaluation.validation for evaluation in record.evaluations] == [record.validation]
    assert record.budget is not None
    assert record.evaluations[-1].step < record.budget.steps
    assert sorted(record.files)[:2] == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    assert not any("test" in name for name in record.files)
    assert outcome.counts.stopped_early == 1
    assert again.num_skipped == 1
    assert again.records == outcome.records
    assert (out / "results" / "report.html").is_file()
    assert not outcome.problems


def test_an_unknown_strategy_or_executor_is_refused(experiment: ExperimentWriter, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no strategy 'matrxi'; accepted: halving, matrix"):
        lorabench.run(experiment(), tmp_path / "out", strategy="matrxi")
    with pytest.raises(ConfigError, match=r"there is no executor 'hree'; accepted: devices, here, ray\."):
        lorabench.run(experiment(), tmp_path / "out", executor="hree")
