"""Linear layers in four and eight bits: what is held, what is written, and gradients through it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from lorabench.core.errors import InputError
from lorabench.deploy.engine import ENGINES, Source
from lorabench.deploy.export import export_run
from lorabench.deploy.form import make_form
from lorabench.deploy.subject import Subject
from lorabench.models.base import load_base
from lorabench.models.quantized import BITSANDBYTES_KINDS, Quantization, dequantize_into
from lorabench.records.schema import RunRecord
from lorabench.runs.view import RunView
from tests.deploy.conftest import ModelMaker
from tests.deploy.test_export import IDS, logits

bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
pytestmark = pytest.mark.slow

PLAIN: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16},
    "int8": {"load_in_8bit": True},
}


def quantised_layers(model: torch.nn.Module) -> dict[str, Any]:
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


@pytest.mark.parametrize("quantization", BITSANDBYTES_KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_weights_are_those_that_the_layers_multiply_with(
    family: str, quantization: Quantization, random_model: ModelMaker
) -> None:
    folder = random_model(family)
    base = load_base(folder, precision="fp32", device="cpu", quantization=quantization)
    layers = quantised_layers(base.model)
    assert len(layers) == {"gpt2": 8, "llama": 14}[family]
    for layer in layers.values():
        scratch = torch.empty(layer.out_features, layer.in_features)
        dequantize_into(layer, scratch)
        bias = 0 if layer.bias is None else layer.bias
        multiplied = (layer(torch.eye(layer.in_features)) - bias).T
        torch.testing.assert_close(scratch, multiplied, rtol=2e-3, atol=2e-3 * float(scratch.abs().max()))


@pytest.mark.parametrize("quantization", BITSANDBYTES_KINDS)
def test_gradients_after_scoring_are_those_of_the_dequantised_base(
    quantization: Quantization, random_model: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, scoring, training: four-bit layers that pack themselves when they score would spoil the second."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    folder = random_model("llama")
    quantised = load_base(folder, precision="fp32", device="cpu", quantization=quantization).model
    wide = load_base(folder, precision="fp32", device="cpu").model
    for name, layer in quantised_layers(quantised).items():
        assert not getattr(layer, "support_avx512bf16_for_cpu", False)
        dequantize_into(layer, wide.get_submodule(name).weight.data)
    models = []
    for model in (quantised, wide):
        torch.manual_seed(1)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        models.append(adapted)
    gradients(models[0])
    for model in models:
        logits(model)
        model.train()
    ours, theirs = (gradients(model) for model in models)
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=0)
    assert cosine > (0.99 if quantization == "int8" else 0.999)  # int8 rounds what goes through it, too


def gradients(model: torch.nn.Module) -> torch.Tensor:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_both_orders_are_what_plain_programs_make_of_them(kind: str, finished: RunRecord, tmp_path: Path) -> None:
    """Merged and then quantised, and the adapter on a quantised base: two models."""
    out = tmp_path / "out"
    for form in (f"merged:{kind}", f"adapter:{kind}"):
        export_run(finished.run_id, out, form=form, to=tmp_path / form, view=RunView())
    options = {"quantization_config": BitsAndBytesConfig(**PLAIN[kind]), "dtype": torch.bfloat16}
    base = AutoModelForCausalLM.from_pretrained(finished.references["model"], **options)
    plain = {
        f"merged:{kind}": AutoModelForCausalLM.from_pretrained(tmp_path / f"merged:{kind}"),
        f"adapter:{kind}": PeftModel.from_pretrained(base, str(out / "runs" / finished.run_id / "adapter")),
    }
    found = {}
    for form, model in plain.items():
        for layer in quantised_layers(model).values():
            layer.support_avx512bf16_for_cpu = False  # packing takes no layers as narrow as these
        source = Source(
            form=form,
            engine="bitsandbytes",
            folder=tmp_path / form,
            base_folder=Path(finished.references["model"]),
            context_length=32,
            threads=1,
        )
        found[form] = torch.from_numpy(ENGINES.get("bitsandbytes").scorer(source).logits(IDS[0].tolist()))
        torch.testing.assert_close(found[form], logits(model)[0], rtol=0.0, atol=1e-2 * float(found[form].abs().max()))
    first, second = found.values()
    assert not torch.equal(first, second)
    held = json.loads((tmp_path / f"merged:{kind}" / "config.json").read_text())["quantization_config"]
    assert held["quant_method"] == "bitsandbytes"
    assert (tmp_path / f"merged:{kind}" / "tokenizer.json").is_file()


def test_an_adapter_that_peft_cannot_put_there_is_refused(finished: RunRecord, tmp_path: Path) -> None:
    path = tmp_path / "out" / "runs" / finished.run_id / "adapter" / "adapter_config.json"
    subject = Subject.of(finished.run_id, tmp_path / "out")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peft_type": "LOHA"}))
    with pytest.raises(InputError, match="PEFT puts no adapter of the kind LOHA on layers of four or eight bits"):
        make_form("adapter:nf4").check(subject)
