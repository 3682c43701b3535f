"""Validation and test are drawn evenly over documents that are longer than a piece, and summed by document."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import lorabench
from lorabench.corpora.drawing import draw
from lorabench.corpora.store import load_corpus
from lorabench.records.store import RecordStore
from tests.runs.conftest import ExperimentWriter, write_corpus


@pytest.fixture
def long_texts(tmp_path: Path) -> Path:
    """Documents of 3 to 30 kB."""
    lines = write_corpus(tmp_path / "words.jsonl", num_documents=1500).read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    path = tmp_path / "long.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for index in range(24):
            length = 15 if index % 6 else 150
            file.write(json.dumps({"text": " ".join(texts[index * 40 :][:length])}) + "\n")
    return path


def test_records_files_and_evaluate_agree_on_the_pieces_drawn(
    experiment: ExperimentWriter, tiny_model: Callable[[str], Path], long_texts: Path, tmp_path: Path
) -> None:
    budgets = {"validation": 2_500, "test": 3_500}
    scoring = {f"{split}_bytes": budget for split, budget in budgets.items()}
    path = experiment(datasets=[str(long_texts)], adapter={"rank": 2}, evaluation=scoring | {"times": 1, "samples": 1})
    outcome = lorabench.run(path, tmp_path / "out", trackers=["none"])
    assert outcome.exit_code == 0
    (record,) = outcome.records
    store = RecordStore(tmp_path / "out")
    splits = load_corpus(str(long_texts), max_train_bytes=None).splits
    for split, scores in (("validation", record.validation), ("test", record.test)):
        assert scores is not None
        drawn = draw(splits[split], budgets[split])
        table = pd.read_parquet(store.run_dir(record.run_id) / "documents" / f"{split}.parquet")
        assert list(table["document_hash"]) == drawn.hashes
        assert list(table["document_bytes"]) == drawn.document_bytes
        assert (table["num_bytes"] < table["document_bytes"]).all()
        assert table["nll"].sum() == pytest.approx(scores.negative_log_likelihood)
        assert scores.num_documents == len(drawn.hashes) < len(drawn.pieces)
        assert scores.num_bytes == sum(piece.num_bytes for piece in drawn.pieces) <= budgets[split]
        assert scores.effective_documents == pytest.approx(
            table["num_bytes"].sum() ** 2 / (table["num_bytes"] ** 2).sum()
        )
        again = lorabench.evaluate(
            str(tiny_model("smollm2")),
            str(long_texts),
            split=split,
            max_bytes=budgets[split],
            adapter=store.run_dir(record.run_id) / "adapter",
            context_length=record.spec.training.context_length,
            precision="fp32",
        )
        assert again["negative_log_likelihood"] == pytest.approx(scores.negative_log_likelihood, rel=1e-5)
        assert again["num_documents"] == scores.num_documents
        documents = store.documents(record, split, scores)
        assert documents is not None
        assert documents.effective == pytest.approx(scores.effective_documents)
        assert documents.lengths.sum() == sum(drawn.document_bytes)
    assert record.samples[0].document_hash in draw(splits["validation"], budgets["validation"]).hashes
    summary = (tmp_path / "out" / "results" / "results_summary.md").read_text(encoding="utf-8")
    assert "documents of one length, so its intervals are rough" in summary


def test_two_budgets_on_one_corpus_are_one_corpus_and_not_compared(
    experiment: ExperimentWriter, long_texts: Path, tmp_path: Path
) -> None:
    for budget in (2_500, 2_600):
        path = experiment(
            datasets=[str(long_texts)], adapter={"rank": 2}, evaluation={"validation_bytes": budget, "test_bytes": 700}
        )
        assert lorabench.run(path, tmp_path / "out", trackers=["none"]).exit_code == 0
    summary = (tmp_path / "out" / "results" / "results_summary.md").read_text(encoding="utf-8")
    assert summary.count("### long-") == 1
    assert "1 earlier run scored other validation text of it" in summary
