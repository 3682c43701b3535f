"""`evaluation.tasks`: tasks of one's own, done by base and adapter, as the harness itself does them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lorabench
from lorabench.core.device import choose_device
from lorabench.core.errors import ConfigError, DataError, MissingExtraError, UnknownNameError
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.models.base import load_base
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore, load_records
from lorabench.scoring.tasks import paired_error, run_tasks
from tests.runs.conftest import ExperimentWriter

SCORING = {"validation_bytes": 1200, "test_bytes": 1200, "times": 2, "samples": 0}
COLOURS = ("red", "green", "blue")


def write_task(folder: Path, name: str = "colours", num_documents: int = 12) -> Path:
    """A multiple-choice task over a local file, with few-shot examples of none."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"The {index}th colour is", "answer": index % 3} for index in range(num_documents)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(
        f"task: {name}\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {json.dumps(str(folder / 'data.jsonl'))}}}}}\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        'doc_to_text: "{{question}}"\n'
        "doc_to_target: answer\n"
        f"doc_to_choice: {json.dumps(COLOURS)}\n"
        "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n",
        encoding="utf-8",
    )
    return path


def run(path: Path, out: Path) -> list[RunRecord]:
    lorabench.run(path, out, trackers=["none"])
    return load_records(out)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return write_task(tmp_path / "own tasks")


@pytest.mark.slow
def test_a_task_is_done_after_training_or_later_and_the_same(
    experiment: ExperimentWriter, task: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = {**SCORING, "tasks": [str(task)]}
    capfd.readouterr()
    (at_once,) = run(experiment(adapter={"rank": 2}, evaluation=asked), tmp_path / "at_once")
    (before,) = run(experiment(adapter={"rank": 2}, evaluation=SCORING), tmp_path / "later")
    (later,) = run(experiment(adapter={"rank": 2}, evaluation=asked), tmp_path / "later")
    assert "it/s" not in capfd.readouterr().err
    assert before.tasks == ()
    assert before.run_id == later.run_id == at_once.run_id
    (result,), (again,) = at_once.tasks, later.tasks
    assert result.metrics == again.metrics
    assert (result.task, result.num_examples) == ("colours", 12)
    metric = result.metrics["acc"]
    assert metric.higher_is_better
    assert metric.base_error is not None
    assert result.samples is not None
    assert result.samples in at_once.files
    answers = (tmp_path / "at_once/runs" / at_once.run_id / result.samples).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in answers.splitlines()]
    for name, figure in (("base", metric.base), ("adapted", metric.adapted)):
        assert np.mean([row[name]["acc"] for row in rows]) == pytest.approx(figure)
    assert [row["doc"]["question"] for row in rows] == [f"The {index}th colour is" for index in range(12)]
    assert [row["adapted"]["resps"] for row in rows] != [row["base"]["resps"] for row in rows]
    shown = (tmp_path / "at_once/results/results_details.md").read_text(encoding="utf-8")
    assert f"{metric.base:.4f} ± {metric.base_error:.4f}" in shown
    assert f"colours acc {metric.adapted:.4f}" in (tmp_path / "at_once/results/benchmark_results.csv").read_text()
    assert "<h2>Tasks</h2>" in (tmp_path / "at_once/results/report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_figures_are_the_harness_s_own(tiny_model: Callable[[str], Path], task: Path, tmp_path: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    folder = tiny_model("gpt2")
    manager = TaskManager(include_path=str(task.parent), include_defaults=False)
    theirs: Any = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32"},
        device="cpu",
        tasks=["colours"],
        task_manager=manager,
        limit=7,
    )
    random.seed(5)
    expected = random.Random(5).random()
    ours = run_tasks(load_base(folder, precision="fp32", device="cpu"), folder, str(task), 7)["colours"]
    assert random.random() == expected
    assert ours.num_examples == 7
    assert ours.metrics["acc"] == theirs["results"]["colours"]["acc,none"]
    assert ours.errors["acc"] == pytest.approx(theirs["results"]["colours"]["acc_stderr,none"])
    scores = [[float(response[0][0]) for response in sample["resps"]] for sample in ours.samples]
    wanted = [[float(response[0][0]) for response in sample["resps"]] for sample in theirs["samples"]["colours"]]
    assert np.allclose(scores, wanted, atol=1e-4)


def test_an_edited_task_is_done_again(experiment: ExperimentWriter, task: Path) -> None:
    path = experiment(evaluation={**SCORING, "tasks": str(task.parent)})

    def revisions() -> list[str]:
        plan = make_plan(load_experiment(path), choose_device("cpu"))
        return list(plan.runs[0].measures.tasks.values())

    before = revisions()
    assert revisions() == before
    write_task(task.parent, num_documents=13)
    assert revisions() != before


@pytest.mark.slow
def test_mistakes_are_said_before_anything_runs(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(tasks: object, error: type[Exception], words: str) -> None:
        path = experiment(evaluation={**SCORING, "tasks": tasks})
        with pytest.raises(error, match=words):
            run(path, tmp_path / "out")
        assert RecordStore(tmp_path / "out").run_ids() == []

    refused(["./nowhere.yaml"], ConfigError, "there is no such file, neither in .*, beside the experiment, nor in")
    (tmp_path / "empty").mkdir()
    refused([f"{tmp_path}/empty"], DataError, "nor a folder with some")
    refused(["helaswag"], UnknownNameError, "Did you mean 'hellaswag'")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    refused(["hellaswag"], MissingExtraError, "lorabench\\[harness\\]")


def test_the_error_of_a_difference_is_that_of_the_pairs() -> None:
    base, adapted = ([{"acc": value} for value in values] for values in ((0.0, 1.0, 0.0, 1.0), (1.0, 1.0, 0.0, 1.0)))
    assert paired_error("acc", base, adapted) == pytest.approx(0.25)
    assert paired_error("acc", base[:3], adapted) is None
    assert paired_error("other", base, adapted) is None
