"""One record, done again from what it holds: identical here, and where it cannot be, the reason is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import lorabench
from lorabench.core.errors import InputError
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import load_records
from lorabench.runs.reproduction import compare, reproduce
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_survival import TRAINING, finish, start, wait_for


@pytest.mark.slow
def test_paths_given_relative_and_another_text_field(
    experiment: ExperimentWriter,
    tmp_path: Path,
    tiny_model: Callable[[str], Path],
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copytree(tiny_model("smollm2"), work / "plain")
    lines = [{"body": json.loads(line)["text"], "text": 3} for line in corpus.read_text(encoding="utf-8").splitlines()]
    (work / "words.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    monkeypatch.chdir(work)
    path = experiment(adapter={"rank": 2}, models=["plain"], datasets=["words.jsonl"], text_field="body")
    (record,) = lorabench.run(path, "out", trackers=["none"]).records
    assert record.references == {
        "model": str(work / "plain"),
        "dataset": str(work / "words.jsonl"),
        "text_field": "body",
    }
    monkeypatch.chdir(tmp_path)
    result = reproduce(record.run_id, work / "out")
    assert result.identical
    (work / "words.jsonl").write_text((work / "words.jsonl").read_text() + '{"body": "one more document"}\n')
    with pytest.raises(InputError, match=r"what the run used has changed: dataset revision was .* and is now"):
        reproduce(record.run_id, work / "out")
    (work / "words.jsonl").unlink()
    with pytest.raises(InputError, match=r"words\.jsonl: there is no such file"):
        reproduce(record.run_id, work / "out")


def test_what_differs_is_named_and_measured_against_the_noise(finished: RunRecord) -> None:
    assert finished.validation is not None
    assert finished.budget is not None
    other = finished.model_copy(
        update={
            "validation": finished.validation.model_copy(
                update={"negative_log_likelihood": finished.validation.negative_log_likelihood * 1.01}
            ),
            "budget": finished.budget.model_copy(update={"micro_batch_size": 1}),
            "environment": finished.environment.model_copy(update={"processor": "another one"}),
        }
    )
    result = compare(finished, other, 0.05)
    assert not result.identical
    assert [figure.name for figure in result.figures if not figure.same] == ["validation (bits per byte)"]
    assert {item.name for item in result.surroundings} == {"processor", "micro-batch"}


@pytest.mark.slow
def test_a_run_that_was_killed_and_taken_up_comes_out_identical(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path, out = experiment(adapter={"rank": 2, "dropout": 0.1}, training={**TRAINING, "epochs": 8}), tmp_path / "out"
    process = start(path, out, "--checkpoint-seconds", "0")
    assert wait_for(process, b"training", 60)
    (checkpoints,) = [out / "runs" / run.run_id / "checkpoints" for run in lorabench.plan(path).runs]
    while not list(checkpoints.glob("step-*")):
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    finish(start(path, out))
    (record,) = load_records(out)
    assert record.status is Status.COMPLETED
    assert record.num_resumed == 1
    assert reproduce(record.run_id, out).identical
