"""Forms of a run on instruction data answer its questions again, paired with the unquantised adapter's answers."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

import lorabench
from lorabench.deploy.deployment import deploy_run
from lorabench.records.deployment import DeploymentStore
from lorabench.records.store import RecordStore, load_records
from lorabench.report.deployment_table import deployed_runs
from lorabench.report.sections.deployment import answer_rows
from lorabench.runs.view import RunView
from tests.runs.conftest import ExperimentWriter

pytestmark = pytest.mark.slow

WORDS = "river stone lantern market winter garden copper violin harbour engine".split()  # noqa: SIM905
SCORING = {"validation_bytes": 1200, "test_bytes": 1200, "times": 1, "samples": 0}
GENERATE = {"metric": ["rouge_l", "mine.py:length"], "max_new_tokens": 6, "num_examples": 7}


def test_every_form_answers_what_the_adapter_answered(experiment: ExperimentWriter, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Number {i}: say {WORDS[i % 10]}{'.' * (i % 3)}", "completion": WORDS[i % 10]} for i in range(120)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "mine.py").write_text("def length(answer, reference):\n    return len(answer)\n", encoding="utf-8")
    forms = ["merged:fp32", *(["gguf:F32"] if find_spec("llama_cpp") else [])]
    corpus = {"path": str(tmp_path / "pairs.jsonl"), "near_duplicates": "keep"}
    path = experiment(datasets=[corpus], adapter={"rank": 2}, evaluation={**SCORING, "generate": GENERATE})
    outcome = lorabench.run(path, tmp_path / "out", trackers=["none"])
    assert outcome.exit_code == 0
    (run,) = load_records(tmp_path / "out")
    records = deploy_run(run.run_id, tmp_path / "out", forms=forms, num_rounds=1, threads=1, view=RunView())

    store = DeploymentStore(tmp_path / "out")
    for record in records:
        assert [answers.split for answers in record.answers] == ["validation", "test"]
        for answers in record.answers:
            before = run.answers_of(answers.split)
            assert before is not None
            assert set(answers.metrics) == {"rouge_l"}  # a function of the user's own is not kept with the run
            figure = answers.metrics["rouge_l"]
            assert figure.base == pytest.approx(before.metrics["rouge_l"].adapted)
            assert figure.adapted == pytest.approx(figure.base)  # in float32 nothing is lost
            table = pd.read_parquet(store.form_dir(run.run_id, record.form) / answers.documents)
            assert list(table["answer"]) == list(table["base_answer"])
            assert answers.num_cut == before.num_cut
    (deployed,), problems = deployed_runs([run], RecordStore(tmp_path / "out"))
    assert not problems
    assert [row[:4] for row in answer_rows(deployed)][:2] == [
        (forms[-1], "validation", "rouge_l", "7"),
        (forms[-1], "test", "rouge_l", "7"),
    ]

    path = store.form_dir(run.run_id, "merged:fp32") / "answers-test.parquet"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    _, (problem,) = deployed_runs([run], RecordStore(tmp_path / "out"))
    assert "answers-test.parquet" in problem
