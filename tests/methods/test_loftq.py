"""LoftQ's start against PEFT's own, and against what it is to make better: the weights as they were published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from lorabench.core.errors import ConfigError
from lorabench.methods.attach import attach
from lorabench.methods.registry import METHODS, require_takes_base
from lorabench.models.base import load_base
from lorabench.models.quantized import keep_unpacked
from tests.fast.fast_cases import alone_nll, packed, settings
from tests.marks import slow
from tests.methods.test_every_method import trained

pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
TinyModel = Callable[[str], Path]


@pytest.mark.parametrize("alpha", ["1r", "2r"])
def test_the_start_is_the_nearest_of_its_rank_to_what_was_lost(tiny_model: TinyModel, alpha: str) -> None:
    """By numpy from the file, and PEFT's own reading of the adapter; PEFT's own start asks for a GPU."""
    from bitsandbytes.functional import dequantize_4bit

    base = load_base(tiny_model("smollm2"), precision="fp32", device="cpu", quantization="nf4")
    attach(base, settings(method="loftq", alpha=alpha), seed=0)
    assert base.execution.kind == "fast"
    published = load_file(tiny_model("smollm2") / "model.safetensors")
    layers = {name: module for name, module in base.model.named_modules() if hasattr(module, "lora_A")}
    assert len(layers) == len(base.decoder.layers if base.decoder else ()) * 7
    for name, module in layers.items():
        held = module.get_base_layer().weight
        lost = (published[f"{name}.weight"].float() - dequantize_4bit(held.data, held.quant_state)).double().numpy()
        left, sizes, right = np.linalg.svd(lost, full_matrices=False)
        nearest = torch.from_numpy(left[:, :4] * sizes[:4] @ right[:4]).float()
        assert torch.allclose(module.get_delta_weight("default"), nearest, atol=1e-5), name


@pytest.mark.parametrize("family", ["gpt2", "smollm2"])
def test_the_start_brings_scores_closer_to_those_of_the_published_weights(tiny_model: TinyModel, family: str) -> None:
    folder = tiny_model(family)
    whole = load_base(folder, precision="fp32", device="cpu")
    base = load_base(folder, precision="fp32", device="cpu", quantization="nf4")
    batch = packed([(9, 13, 2)], base.vocabulary_size)
    wanted = whole.token_nll(batch)
    before = (base.token_nll(batch) - wanted).abs().max()
    attach(base, settings(method="loftq", rank=8), seed=0)
    assert (base.token_nll(batch) - wanted).abs().max() < 0.9 * before


@pytest.mark.parametrize("family", [slow("gpt2"), slow("smollm2")])
def test_taken_up_again_saved_and_read_by_plain_peft(tiny_model: TinyModel, family: str, tmp_path: Path) -> None:
    folder, own = tiny_model(family), settings(method="loftq")
    base = load_base(folder, precision="fp32", device="cpu", quantization="nf4")
    batch = packed([(9, 13, 2)], base.vocabulary_size)
    adapter = trained(base, own, tmp_path / "whole")
    scores = base.token_nll(batch).double()
    end = [parameter.detach().clone() for parameter in adapter.parameters]
    adapter.save(tmp_path / "adapter")
    adapter.detach()
    trained(base, own, tmp_path / "parts", stop_after=4).detach()
    again = trained(base, own, tmp_path / "parts")
    assert all(map(torch.equal, again.parameters, end))
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )  # fmt: skip
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=four_bits)
    keep_unpacked(plain)
    read = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    assert torch.allclose(alone_nll(read, batch), scores, atol=1e-4)


def test_a_base_that_lost_nothing_is_refused_in_the_plan() -> None:
    own = METHODS.get("loftq").settings(method="loftq")
    with pytest.raises(ConfigError, match="which starts from what quantising takes away; give nf4 or nf4-double"):
        require_takes_base(own, "none")
    require_takes_base(own, "nf4")
