"""`evaluation.generate`: answers of base and adapter, right after training or later, kept, checked and shown."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lorabench
from lorabench.analysis.answers import ALL_ALIKE
from lorabench.analysis.findings import Findings
from lorabench.cli.views.run_page import show_run
from lorabench.core.device import choose_device
from lorabench.core.errors import LorabenchError
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore, load_records
from lorabench.report.build import findings_of
from tests.runs.conftest import ExperimentWriter

SCORING = {"validation_bytes": 1200, "test_bytes": 1200, "times": 1, "samples": 0}
GENERATE = {"metric": ["rouge_l", "exact_match"], "max_new_tokens": 6, "num_examples": 7}
WORDS = "river stone lantern market winter garden copper violin harbour engine".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs that a tiny model learns: a word asked for is said."""
    path = tmp_path_factory.mktemp("questions") / "pairs.jsonl"
    rows = [
        {"prompt": f"Number {index}: say {WORDS[index % 10]}{'.' * (index % 3)}", "completion": f" {WORDS[index % 10]}"}
        for index in range(120)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def asking(generate: object = None, **others: object) -> dict[str, Any]:
    return {**SCORING, **others, **({} if generate is None else {"generate": generate})}


def run(path: Path, out: Path) -> list[RunRecord]:
    lorabench.run(path, out, trackers=["none"])
    return load_records(out)


def findings(out: Path) -> Findings:
    return findings_of(load_records(out), RecordStore(out))


@pytest.mark.slow
def test_answers_right_after_training_or_later_are_the_same(
    experiment: ExperimentWriter, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "datasets": [{"path": str(questions), "near_duplicates": "keep"}],
        "adapter": {"rank": 2},
        "seeds": [0, 1],
    }
    at_once = run(experiment(**changes, evaluation=asking(GENERATE)), tmp_path / "at_once")
    before = run(experiment(**changes, evaluation=asking()), tmp_path / "later")
    assert [record.answers for record in before] == [(), ()]
    path = experiment(**changes, evaluation=asking(GENERATE))
    later = run(path, tmp_path / "later")
    assert [record.run_id for record in later] == [record.run_id for record in at_once]
    for one, two in zip(at_once, later, strict=True):
        assert [found.split for found in one.answers] == ["validation", "test"]
        assert [found.metrics for found in one.answers] == [found.metrics for found in two.answers]
        assert (one.num_test_scorings, two.num_test_scorings) == (1, 1)
        assert not [note for note in one.notes if "not measured" in note]
    assert len(list((tmp_path / "at_once" / "base_scores").glob("answers-*.parquet"))) == 2  # once for both seeds
    check_tables(tmp_path / "at_once", at_once)
    check_intervals(tmp_path / "at_once", at_once)
    check_views(tmp_path / "at_once", at_once[0], capsys)
    check_damage(tmp_path / "at_once", at_once[0])
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "later" / "runs").rglob("*.parquet")}
    run(path, tmp_path / "later")
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "later" / "runs").rglob("*.parquet")}
    again = run(experiment(**changes, evaluation=asking({**GENERATE, "num_examples": 5})), tmp_path / "later")[0]
    assert [(found.num_times, found.num_examples) for found in again.answers] == [(2, 5), (2, 5)]
    assert len([name for name in again.files if "answers" in name]) == 2
    assert "test was answered 2 times" in (tmp_path / "later/results/results_details.md").read_text(encoding="utf-8")


def check_tables(out: Path, records: list[RunRecord]) -> None:
    """Means are those of the rows, and the base's answers those of every run."""
    bases = set()
    for record in records:
        for found in record.answers:
            assert found.documents in record.files
            table = pd.read_parquet(out / "runs" / record.run_id / found.documents)
            assert len(table) == found.num_examples == 7
            assert not table["document_hash"].duplicated().any()
            assert table["prompt"].str.contains("Number").all()
            assert set(table["reference"]) <= set(WORDS)
            for name, figure in found.metrics.items():
                assert figure.adapted == pytest.approx(table[f"score:{name}"].mean())
                assert figure.base == pytest.approx(table[f"base_score:{name}"].mean())
            said = table["answer"].str.strip() == table["reference"]
            assert (said == (table["score:exact_match"] == 1.0)).all()
            assert found.num_cut == (~table["is_finished"]).sum()
            bases.add((found.split, tuple(table["base_answer"])))
    assert len(bases) == 2


def check_intervals(out: Path, records: list[RunRecord]) -> None:
    """With one seed those of Student's t over questions, paired; test is read for what was chosen."""
    store = RecordStore(out)
    alone = findings_of(records[:1], store)
    assert {found.split for found in alone.answers} == {"validation", "test"}
    for found in alone.answers:
        answers = records[0].answers_of(found.split)
        assert answers is not None
        table = pd.read_parquet(out / "runs" / records[0].run_id / answers.documents)
        for interval, values in (
            (found.adapted, table[f"score:{found.metric}"]),
            (found.gain, table[f"score:{found.metric}"] - table[f"base_score:{found.metric}"]),
        ):
            assert interval.estimate == pytest.approx(values.mean())
            if np.ptp(values) == 0:
                assert (interval.low, interval.note) == (None, ALL_ALIKE)
                continue
            half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
            assert (interval.low, interval.high) == pytest.approx(
                (values.mean() - half, values.mean() + half), abs=1e-4
            )
    both = findings(out).answers
    assert {found.adapted.num_seeds for found in both} == {2}


def check_views(out: Path, record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    found = record.answers_of("validation")
    assert found is not None
    figure = found.metrics["rouge_l"]
    row = pd.read_csv(out / "results" / "benchmark_results.csv").set_index("run_id").loc[record.run_id]
    assert row["val_answers"] == pytest.approx(figure.adapted)
    assert row["base_val_answers"] == pytest.approx(figure.base)
    assert f"validation rouge_l {figure.adapted:.4f} (base {figure.base:.4f})" in row["generate"]
    capsys.readouterr()
    show_run(record, RecordStore(out))
    assert f"{figure.base:.4f}" in capsys.readouterr().out
    assert "<h2>Answers</h2>" in (out / "results" / "report.html").read_text(encoding="utf-8")
    assert "(validation), rouge\\_l: base" in (out / "results" / "results_summary.md").read_text(encoding="utf-8")


def check_damage(out: Path, record: RunRecord) -> None:
    """An edited file is not believed, and an intact one under another record's figures neither."""
    spoilt = out.parent / "spoilt"
    shutil.copytree(out, spoilt)
    found = record.answers[0]
    file = spoilt / "runs" / record.run_id / found.documents
    table = pd.read_parquet(file)
    table["score:rouge_l"] = 1.0
    table.to_parquet(file, index=False)
    read = findings(spoilt)
    assert any(f"{found.documents}: it is not as it was written" in problem for problem in read.problems)
    assert {one.gain.low for one in read.answers if one.split == "validation"} == {None}
    figures = {name: figure.model_copy(update={"adapted": 2.0}) for name, figure in found.metrics.items()}
    other = found.model_copy(update={"metrics": figures})
    with pytest.raises(LorabenchError, match="does not have the record's mean"):
        RecordStore(out).answers(record, other)


def test_what_cannot_be_answered_is_said_and_takes_nothing_from_the_run(
    experiment: ExperimentWriter, questions: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("def score(answer, reference):\n    raise ValueError('no idea')\n")
    generate = {**GENERATE, "metric": ["contains", "mine.py:score"]}
    path = experiment(
        datasets=[{"path": str(questions), "near_duplicates": "keep"}], adapter={"rank": 2}, evaluation=asking(generate)
    )
    outcome = lorabench.run(path, tmp_path / "out", trackers=["none"])
    (record,) = load_records(tmp_path / "out")
    assert (outcome.exit_code, record.status.value, record.answers) == (1, "completed", ())
    reason = "not measured: evaluation.generate: mine.py:score fails on answer 1: ValueError: no idea"
    assert [note for note in record.notes if note.startswith("answers to")] == [
        f"answers to validation: {reason}",
        f"answers to test: {reason}",
    ]
    (tmp_path / "mine.py").write_text("def score(answer, reference):\n    return len(answer)\n")
    again = lorabench.run(path, tmp_path / "out", trackers=["none"])
    (record,) = load_records(tmp_path / "out")
    assert again.exit_code == 0
    assert list(record.answers[0].metrics) == ["contains", "mine.py:score"]
    assert not [note for note in record.notes if note.startswith("answers to")]


def test_a_plan_counts_the_answers_and_refuses_plain_text(experiment: ExperimentWriter, questions: Path) -> None:
    def planned(**changes: object) -> Any:
        return make_plan(load_experiment(experiment(adapter={"rank": 2}, **changes)), choose_device("cpu"))

    corpus = {"datasets": [{"path": str(questions), "near_duplicates": "keep"}]}
    with_answers = planned(**corpus, evaluation=asking({**GENERATE, "num_examples": 5000, "max_new_tokens": 30}))
    without = planned(**corpus, evaluation=asking())
    assert with_answers.runs[0].run_id == without.runs[0].run_id
    assert with_answers.runs[0].workload.answers == (2 * 12, 30)
    assert with_answers.runs[0].estimated_seconds > without.runs[0].estimated_seconds
    assert with_answers.groups[0].estimated_base_seconds > without.groups[0].estimated_base_seconds
    assert with_answers.runs[0].estimated_memory_bytes > without.runs[0].estimated_memory_bytes
    with pytest.raises(LorabenchError, match=r"leaves .* no room for a prompt"):
        planned(**corpus, evaluation=asking({**GENERATE, "max_new_tokens": 60_000}))
    with pytest.raises(LorabenchError, match=r"evaluation.generate: words-\w+ is plain text, which asks nothing"):
        planned(evaluation=asking(GENERATE))
    with pytest.raises(LorabenchError, match=r"evaluation.generate: stories is plain text"):
        planned(datasets=["stories"], evaluation=asking(GENERATE))
