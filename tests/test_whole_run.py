"""A finished run as a stranger checks it: files, figures and tracking against one another and against plain PEFT."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorabench.models.locate import locate_model
from tests.runs.conftest import new_cache, write_corpus
from tests.trackers.reading import inspect, md5_of, merged, of_kind, offline_folders

COLUMNS = (  # noqa: SIM905
    "run_id, status, status_reason, experiment, model, model_revision, model_parameters, dataset, dataset_revision, "
    "method, rank, alpha, dropout, target_modules, trainable_parameters, quantization, precision, learning_rate, "
    "batch_size, context_length, epochs, seed, train_bytes, train_tokens, steps, base_val_bits_per_byte, "
    "base_val_perplexity, val_loss, val_perplexity, val_bits_per_byte, val_bits_per_token, val_word_perplexity, "
    "test_loss, test_perplexity, test_bits_per_byte, tokens_per_second, train_seconds, peak_memory_mb, adapter_mb, "
    "device, num_devices, lorabench_version, git_commit, started_at, finished_at"
).split(", ")
STEP_KEYS = {"step", "loss", "smoothed_loss", "learning_rate", "gradient_norm", "tokens_per_second"}
REPOSITORY = Path(__file__).parents[1]


def command(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    values = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.Popen(
        [sys.executable, "-m", "lorabench", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=values | {"NETRC": os.devnull} | (environment or {}),
        cwd=REPOSITORY,
    )


def finished(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    return output


def export(name: object, split: str, max_bytes: int, folder: Path, environment: dict[str, str]) -> pd.DataFrame:
    """The texts that are scored by themselves, and the hash of the document each is of."""
    path = folder / f"{split}.jsonl"
    options = ("--split", split, "--max-bytes", max_bytes, "--output", path)
    finished(command("datasets", "export", name, *options, environment=environment))
    return pd.DataFrame([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])


def plain_scores(folder: Path, adapter: Path | None, texts: list[str], window: int) -> list[float]:
    """Nats of each document: each window alone after the prefix token, all logits, PEFT's own computation."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    scores = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        nats = 0.0
        for start in range(0, len(ids), window):
            wanted = torch.tensor(ids[start : start + window])
            inputs = torch.cat([torch.tensor([prefix]), wanted[:-1]])[None]
            with torch.no_grad():
                likelihoods = model(inputs).logits[0].double().log_softmax(-1)
            nats -= float(likelihoods.gather(1, wanted[:, None]).sum())
        scores.append(nats)
    return scores


def check_scores(out: Path, record: dict[str, Any], folder: Path, texts: dict[str, pd.DataFrame]) -> None:
    """Record, per-document results, and an independent loop over the exported texts, summed by document."""
    run_dir, window = out / "runs" / record["run_id"], record["spec"]["training"]["context_length"]
    for split, exported in texts.items():
        scores, table = record[split], pd.read_parquet(run_dir / "documents" / f"{split}.parquet")
        exported["num_bytes"] = [len(text.encode()) for text in exported["text"]]
        exported["nll"] = plain_scores(folder, run_dir / "adapter", list(exported["text"]), window)
        documents = exported.groupby("hash", sort=False)[["num_bytes", "nll"]].sum()
        assert list(table["document_hash"]) == list(documents.index)
        assert list(table["num_bytes"]) == list(documents["num_bytes"])
        for column in ("num_bytes", "num_tokens", "num_words"):
            assert table[column].sum() == scores[column]
        assert table["nll"].sum() == pytest.approx(scores["negative_log_likelihood"], rel=1e-12)
        assert table["base_nll"].sum() == pytest.approx(record[f"base_{split}"]["negative_log_likelihood"], rel=1e-12)
        assert list(table["nll"]) == pytest.approx(list(documents["nll"]), rel=1e-4)
        figure = documents["nll"].sum() / math.log(2) / documents["num_bytes"].sum()
        assert scores["derived"]["bits_per_byte"] == pytest.approx(figure, rel=1e-4)
    plain = plain_scores(folder, None, list(texts["validation"]["text"]), window)
    assert sum(plain) == pytest.approx(record["base_validation"]["negative_log_likelihood"], rel=1e-4)


def check_table(out: Path, record: dict[str, Any]) -> None:
    with (out / "results" / "benchmark_results.csv").open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        rows = list(reader)
    assert list(reader.fieldnames or ())[: len(COLUMNS)] == COLUMNS
    (row,) = rows
    for prefix, part in (("val", "validation"), ("test", "test"), ("base_val", "base_validation")):
        for figure, value in record[part]["derived"].items():
            if f"{prefix}_{figure}" in COLUMNS:
                assert float(row[f"{prefix}_{figure}"]) == value
    assert float(row["tokens_per_second"]) == record["speed"]["tokens_per_second"]
    assert int(row["steps"]) == record["budget"]["steps"]


def check_tracking(out: Path, record: dict[str, Any]) -> None:
    """metrics.jsonl and W&B's files, read with W&B's own reader, hold the same steps and evaluations."""
    text = (out / "runs" / record["run_id"] / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in steps] == list(range(1, record["budget"]["steps"] + 1))
    assert all(set(line) >= STEP_KEYS for line in steps)
    assert evaluations[-1]["validation_bits_per_byte"] == record["validation"]["derived"]["bits_per_byte"]
    folder, reported = offline_folders(out)
    (artifact,) = of_kind(inspect(reported), "artifact")
    digests = {entry["path"]: entry["digest"] for entry in artifact["manifest"]["contents"]}
    assert digests["report.html"] == md5_of(out / "results" / "report.html")
    entries = inspect(folder)
    history = [entry["item"] for entry in of_kind(entries, "history")]
    tracked = [item for item in history if "train/step" in item]
    for key in STEP_KEYS:
        assert [item[f"train/{key}"] for item in tracked] == [line[key] for line in steps]
    scored = [item for item in history if "validation/step" in item]
    assert [item["validation/perplexity"] for item in scored] == [line["validation_perplexity"] for line in evaluations]
    run = of_kind(entries, "run")[0]
    assert run["run_group"].startswith(f"lora-r{record['spec']['adapter']['rank']} lr")
    assert record["spec"]["dataset"] in run["run_group"]
    assert run["config"]["update"]["run_id"] == record["run_id"]
    assert {record["spec"]["model"], record["spec"]["dataset"], "lora"} <= set(run["tags"])
    config = merged(entries, "config")
    assert run["config"]["update"]["learning_rate"] == record["spec"]["training"]["learning_rate"]
    assert config["trainable_parameters"] == record["adapter"]["trainable_parameters"]
    assert merged(entries, "summary")["test_bits_per_byte"] == record["test"]["derived"]["bits_per_byte"]
    assert any("samples.nrows" in item for item in history)
    assert any("proc.memory.rssMB" in str(entry) or "memory" in str(entry) for entry in of_kind(entries, "stats"))


def read_record(out: Path) -> dict[str, Any]:
    (path,) = (out / "runs").glob("*/record.json")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert record["status"] == "completed", record["status_reason"]
    return record


@pytest.mark.slow
def test_a_tiny_run_is_what_it_says(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    environment = {"LORABENCH_CACHE": str(new_cache(tmp_path / "cache"))}
    corpus, out = write_corpus(tmp_path / "words.jsonl"), tmp_path / "out"
    values = {
        "name": "tiny",
        "models": [str(tiny_model("smollm2"))],
        "datasets": [str(corpus)],
        "adapter": {"rank": 2},
        "training": {"learning_rate": 0.02, "batch_size": 2, "context_length": 32, "train_bytes": 4000},
        "evaluation": {"validation_bytes": 700, "test_bytes": 900, "times": 2, "samples": 1},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    precision = ("--set", "training.precision=fp32")
    finished(command("run", tmp_path / "tiny.yaml", "--output-dir", out, *precision, environment=environment))
    record = read_record(out)
    texts = {
        "validation": export(corpus, "validation", 700, tmp_path, environment),
        "test": export(corpus, "test", 900, tmp_path, environment),
    }
    check_scores(out, record, tiny_model("smollm2"), texts)
    check_table(out, record)
    check_tracking(out, record)
    shown = finished(command("show", record["run_id"], "--output-dir", out, environment=environment))
    assert "Perplexity by length of document" in shown
    quiet = ("--output-dir", tmp_path / "quiet", "--tracker", "none")
    finished(command("run", tmp_path / "tiny.yaml", *precision, *quiet, environment=environment))
    assert not (tmp_path / "quiet" / "wandb").exists()
    assert read_record(tmp_path / "quiet")["validation"] == record["validation"]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "wandb").write_text("in the way")
    process = command(
        *("run", tmp_path / "tiny.yaml", "--output-dir", tmp_path / "broken", *precision), environment=environment
    )
    errors = process.communicate(timeout=500)[1]
    assert process.returncode == 0, errors
    assert errors.count("tracking with wandb is switched off") == 1
    assert read_record(tmp_path / "broken")["validation"] == record["validation"]


@pytest.mark.alone
@pytest.mark.slow
def test_a_real_run_is_what_it_says_and_is_tracked_while_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = command(
        *("run", "configs/experiments/smoke.yaml", "--output-dir", out, "--set", "training.precision=fp32"),
    )
    seen = 0
    while process.poll() is None:
        time.sleep(1.0)
        files = [path for folder in offline_folders(out) for path in folder.glob("run-*.wandb")]
        if files and not list((out / "runs").glob("*/record.json")):
            seen = max(seen, files[0].stat().st_size)
    finished(process)
    assert seen > 2_000, "W&B's file has to grow while the run goes on"
    record = read_record(out)
    settings = record["spec"]["evaluation"]
    texts = {split: export("news", split, settings[f"{split}_bytes"], tmp_path, {}) for split in ("validation", "test")}
    check_scores(out, record, locate_model("smollm2-135m-instruct").folder, texts)
    check_table(out, record)
    check_tracking(out, record)
    assert record["validation"]["derived"]["bits_per_byte"] < record["base_validation"]["derived"]["bits_per_byte"]
