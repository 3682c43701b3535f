"""Whole experiments on tiny models of real architectures, checked against plain PEFT and Transformers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import lorabench
from lorabench.records.asked import read_asked
from lorabench.records.schema import Status
from lorabench.records.store import RecordStore
from tests.conftest import FAMILIES
from tests.marks import slow

ExperimentWriter = Callable[..., Path]


def scored_by_plain_peft(model_folder: Path, adapter: Path, texts: list[str], context_length: int) -> float:
    """Nats over all tokens: each window alone, full logits, PEFT's own forward."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    total = 0.0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), context_length):
            window = [prefix, *ids[start : start + context_length]]
            with torch.no_grad():
                logits = model(torch.tensor([window[:-1]])).logits[0].double()
            total -= float(logits.log_softmax(-1).gather(1, torch.tensor(window[1:])[:, None]).sum())
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_records_hold_what_plain_peft_measures(
    experiment: ExperimentWriter, tiny_model: Callable[[str], Path], corpus: Path, tmp_path: Path, family: str
) -> None:
    outcome = lorabench.run(experiment(family, adapter={"rank": 4}), tmp_path / "out", trackers=["none"])
    assert outcome.exit_code == 0
    (record,) = outcome.records
    assert record.status is Status.COMPLETED
    store = RecordStore(tmp_path / "out")
    texts = {
        split: {document.hash: document.text for document in documents}
        for split, documents in lorabench_documents(corpus).items()
    }
    for split, scores in (("validation", record.validation), ("test", record.test)):
        table = pd.read_parquet(store.run_dir(record.run_id) / "documents" / f"{split}.parquet")
        assert scores is not None
        chosen = [texts[split][digest] for digest in table["document_hash"]]
        assert scores.num_bytes == sum(len(text.encode()) for text in chosen)
        expected = scored_by_plain_peft(tiny_model(family), store.run_dir(record.run_id) / "adapter", chosen, 32)
        assert scores.negative_log_likelihood == pytest.approx(expected, rel=1e-4)
        assert table["nll"].sum() == pytest.approx(scores.negative_log_likelihood)
    assert record.validation is not None
    assert record.base_validation is not None
    assert record.validation.bits_per_byte < record.base_validation.bits_per_byte


def lorabench_documents(corpus: Path) -> dict[str, list]:
    from lorabench.corpora.store import load_corpus

    return dict(load_corpus(str(corpus), max_train_bytes=None).splits)


def test_a_second_run_does_only_what_is_missing(experiment: ExperimentWriter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = lorabench.run(experiment(), out, trackers=["none"])
    assert (first.num_skipped, len(first.records)) == (0, 2)
    (asked,), _ = read_asked(out)
    assert [*asked.runs] == [record.run_id for record in first.records]
    before = {path: path.read_bytes() for path in out.glob("runs/*/record.json")}
    second = lorabench.run(experiment(adapter={"rank": [2, 4, 8]}), out, trackers=["none"])
    assert (second.num_skipped, len(second.records)) == (2, 3)
    assert {path: path.read_bytes() for path in before} == before


def test_the_table_is_rebuilt_from_the_records(experiment: ExperimentWriter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = lorabench.run(experiment(), out, trackers=["none"])
    with (out / "results" / "benchmark_results.csv").open(encoding="utf-8", newline="") as handle:
        rows = {row["run_id"]: row for row in csv.DictReader(handle)}
    assert set(rows) == {record.run_id for record in outcome.records}
    for record in outcome.records:
        values = json.loads((out / "runs" / record.run_id / "record.json").read_text())
        row = rows[record.run_id]
        assert row["status"] == "completed"
        assert float(row["val_bits_per_byte"]) == values["validation"]["derived"]["bits_per_byte"]
        assert float(row["test_perplexity"]) == values["test"]["derived"]["perplexity"]
        assert int(row["trainable_parameters"]) == values["adapter"]["trainable_parameters"]
        assert int(row["rank"]) == values["spec"]["adapter"]["rank"]
    frame = lorabench.load_records(out)
    assert isinstance(frame, pd.DataFrame)
    assert sorted(frame["run_id"]) == sorted(rows)


def test_metrics_tell_every_step_and_evaluation(experiment: ExperimentWriter, tmp_path: Path) -> None:
    outcome = lorabench.run(experiment(adapter={"rank": 2}), tmp_path / "out", trackers=["none"])
    (record,) = outcome.records
    assert record.budget is not None
    lines = list(RecordStore(tmp_path / "out").metrics(record))
    steps = [line for line in lines if line["kind"] == "step"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in steps] == list(range(1, record.budget.steps + 1))
    assert [line["step"] for line in evaluations] == [evaluation.step for evaluation in record.evaluations]
    assert steps[-1]["train_tokens"] == record.budget.train_tokens
    assert all(math.isfinite(float(line["loss"])) for line in steps)  # type: ignore[arg-type]


def test_a_failing_run_is_recorded_and_does_not_stop_the_others(experiment: ExperimentWriter, tmp_path: Path) -> None:
    path = experiment(
        adapter={"rank": 2},
        training={
            "learning_rate": [0.02, 10.0],
            "batch_size": 1,
            "context_length": 32,
            "train_bytes": 6000,
            "epochs": 3,
            "max_grad_norm": 1e6,
            "schedule": "constant",
            "weight_decay": 10.0,
            "precision": "fp32",
        },
    )
    outcome = lorabench.run(path, tmp_path / "out", trackers=["none"])
    states = {record.spec.training.learning_rate: record for record in outcome.records}
    assert states[0.02].status is Status.COMPLETED
    assert states[10.0].status is Status.DIVERGED
    assert "at step" in str(states[10.0].status_reason)
    assert outcome.exit_code == 1
    again = lorabench.run(path, tmp_path / "out", trackers=["none"])
    assert again.num_skipped == 2
    retried = lorabench.run(path, tmp_path / "out", trackers=["none"], retry_failed=True)
    assert retried.num_skipped == 1
    assert {record.attempt for record in retried.records} == {1, 2}


def test_a_damaged_record_is_set_aside_and_the_run_done_again(experiment: ExperimentWriter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (record,) = lorabench.run(experiment(adapter={"rank": 2}), out, trackers=["none"]).records
    path = out / "runs" / record.run_id / "record.json"
    path.write_text(path.read_text().replace('"status": "completed"', '"status": "Completed"'))
    outcome = lorabench.run(experiment(adapter={"rank": 2}), out, trackers=["none"])
    assert outcome.num_skipped == 0
    assert outcome.records[0].validation == record.validation
    assert list(path.parent.glob("record.json.damaged-*"))


@pytest.mark.slow
def test_a_run_comes_out_identical_in_a_fresh_process(experiment: ExperimentWriter, tmp_path: Path) -> None:
    from lorabench.runs.reproduction import reproduce

    out = tmp_path / "out"
    (record,) = lorabench.run(experiment(adapter={"rank": 2, "dropout": 0.1}), out, trackers=["none"]).records
    result = reproduce(record.run_id, out)
    assert result.identical, result.figures
    assert result.surroundings == ()
    assert result.noise_bits_per_byte is not None


@pytest.mark.parametrize("method", [slow("rslora"), "dora", slow("pissa"), "full"])
def test_other_methods_train_and_leave_the_base_alone(
    experiment: ExperimentWriter, tmp_path: Path, method: str
) -> None:
    path = experiment(adapter={"method": [method, "lora"], "rank": 2})
    outcome = lorabench.run(path, tmp_path / "out", trackers=["none"])
    alone = lorabench.run(experiment(adapter={"method": "lora", "rank": 2}), tmp_path / "alone", trackers=["none"])
    by_method = {record.spec.adapter.method: record for record in outcome.records}
    assert {record.status for record in outcome.records} == {Status.COMPLETED}
    assert by_method["lora"].validation == alone.records[0].validation
    assert by_method[method].validation != by_method["lora"].validation
    folder = tmp_path / "out" / "runs" / by_method[method].run_id / "adapter"
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    assert sum(tensor.numel() for tensor in load_file(folder / name).values()) > 0
