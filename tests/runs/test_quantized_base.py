"""`base.quantization`: planned, refused where it cannot be, trained; adapters load by plain PEFT on such a base."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

import lorabench
from lorabench.core.errors import ConfigError, InputError, MissingExtraError
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import build_experiment, load_experiment
from lorabench.methods.attach import attach
from lorabench.methods.registry import METHODS
from lorabench.models.base import load_base
from lorabench.models.quantized import Quantization
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import load_records
from tests.fast.fast_cases import batches
from tests.fast.test_float8 import round_weights
from tests.runs.conftest import ExperimentWriter

# What BitsAndBytesConfig is given; fp8 is rounded by hand.
PLAIN: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32},
    "int8": {"load_in_8bit": True},
    "fp8": {},
}


def test_an_axis_of_the_base_renames_no_run_without_it(experiment: ExperimentWriter) -> None:
    plain = make_plan(load_experiment(experiment())).runs
    runs = make_plan(load_experiment(experiment(base={"quantization": ["none", "nf4", "nf4-double"]}))).runs
    held = [run.spec.quantization for run in runs]
    assert held == [name for name in ("none", "nf4", "nf4-double") for _ in plain]
    assert [run.run_id for run in runs[: len(plain)]] == [run.run_id for run in plain]
    again = load_experiment(experiment(base={"quantization": ["none", "nf4"]}))
    assert build_experiment(yaml.safe_load(again.to_yaml())).quantizations == ["none", "nf4"]
    assert again.num_runs == 2 * len(plain)


def test_what_cannot_be_is_said(experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"base.quantization: 'fp4' is not accepted; should be 'none', 'nf4'"):
        load_experiment(experiment(base={"quantization": "fp4"}))
    with pytest.raises(ConfigError, match=r"base: 'bits' is not|unknown|bits"):
        load_experiment(experiment(base={"bits": 4}))
    path = experiment(base={"quantization": "nf4"}, adapter={"method": ["lora", "full"], "rank": 2})
    with pytest.raises(ConfigError, match=r"the method full.*of the methods adalora, dora, eva, ia3, loftq, lora"):
        make_plan(load_experiment(path))
    search = {"strategy": "halving", "eta": 3}
    with pytest.raises(ConfigError, match=r"base.quantization: a search compares runs on one base"):
        load_experiment(experiment(base={"quantization": ["none", "nf4"]}, adapter={"rank": [1, 2, 4]}, search=search))
    path = experiment(training={"optimizer": ["adamw", "paged-adamw-8bit"], "context_length": 32})
    with pytest.raises(InputError, match=r"paged-adamw-8bit moves its state .* there is no GPU here; take adamw-8bit"):
        lorabench.run(path, tmp_path / "out", trackers=["none"], device="cpu")
    monkeypatch.setattr("lorabench.core.errors.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lorabench\[qlora\]'"):
        lorabench.run(experiment(base={"quantization": "nf4"}), tmp_path / "out", trackers=["none"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_runs_on_quantised_bases_score_as_plain_peft_does(
    experiment: ExperimentWriter, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    model = shutil.copytree(tiny_model("smollm2"), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 256}))
    training = {"learning_rate": 2e-2, "batch_size": 4, "context_length": 256, "train_bytes": 3_000}
    base = {"quantization": ["none", "nf4", "int8", "fp8"]}
    path = experiment(models=[str(model)], base=base, adapter={"rank": 2}, training=training)
    outcome = lorabench.run(path, tmp_path / "out", trackers=["none"])
    assert outcome.exit_code == 0
    records = {record.spec.quantization: record for record in load_records(tmp_path / "out")}
    assert set(records) == {"none", *PLAIN}
    assert all(record.status is Status.COMPLETED for record in records.values())
    bases = {held: record.base_validation.bits_per_byte for held, record in records.items() if record.base_validation}
    assert len(set(bases.values())) == 4
    weights = {held: record.speed.base_bytes for held, record in records.items() if record.speed}
    assert weights["nf4"] < weights["int8"] < weights["fp8"] < weights["none"]  # type: ignore[operator]
    for held, options in PLAIN.items():
        _check_score(records[held], tmp_path / "out", options)
    again = lorabench.run(path, tmp_path / "again", trackers=["none"])
    for record in again.records:
        first = records[record.spec.quantization]
        assert record.files["adapter/adapter_model.safetensors"] == first.files["adapter/adapter_model.safetensors"]


def test_dora_leaves_an_eight_bit_base_as_it_was(tiny_model: Callable[[str], Path]) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    base = load_base(tiny_model("smollm2"), precision="fp32", device="cpu", quantization="int8")
    batch = batches(base, 1)[0]
    before = base.token_nll(batch)
    adapter = attach(base, METHODS.get("dora").settings(method="dora", rank=4), seed=0)
    first = base.token_nll(batch)
    assert torch.equal(base.token_nll(batch), first)
    assert torch.allclose(first, before, atol=1e-4), "its second factor is zero"
    adapter.detach()
    assert torch.equal(base.token_nll(batch), before)


@pytest.mark.parametrize(("method", "held"), [("adalora", "nf4"), ("ia3", "nf4"), ("randlora", "nf4"), ("ia3", "int8")])
def test_methods_that_peft_computes_train_in_bfloat16(
    tiny_model: Callable[[str], Path], method: str, held: Quantization
) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    losses = {}
    for precision in ("fp32", "bf16"):
        base = load_base(tiny_model("smollm2"), precision=precision, device="cpu", quantization=held)
        adapter = attach(base, METHODS.get(method).settings(method=method, rank=4), seed=0)
        loss = base.loss(batches(base, 1)[0])
        loss.backward()
        losses[precision] = float(loss.detach())
        assert all(parameter.grad is not None for parameter in adapter.parameters)
    assert math.isclose(losses["bf16"], losses["fp32"], rel_tol=1e-3)


def _check_score(record: RunRecord, out: Path, options: dict[str, Any]) -> None:
    """The first documents of validation, by Transformers and PEFT alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        record.references["model"],
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(**options) if options else None,
    )
    if not options:
        round_weights(model)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model = PeftModel.from_pretrained(model, str(out / "runs" / record.run_id / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(record.references["model"])
    table = pd.read_parquet(out / "runs" / record.run_id / "documents" / "validation.parquet")
    texts = [json.loads(line)["text"] for line in Path(record.references["dataset"]).read_text().splitlines()]
    by_hash = {hashlib.sha256(text.encode()).hexdigest(): text for text in texts}
    checked = 0
    for key, nll in zip(table["document_hash"], table["nll"], strict=True):
        text = by_hash.get(str(key))
        if text is None:
            continue
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        if ids.shape[1] > record.spec.training.context_length:
            continue
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1].double()
        expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        assert math.isclose(float(nll), float(expected), rel_tol=2e-3), (text, nll, expected)
        checked += 1
        if checked == 3:
            return
    raise AssertionError(f"only {checked} documents were found again")
