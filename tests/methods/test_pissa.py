"""PiSSA is saved as plain LoRA on the base as published, with the scores that were measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.pissa import difference_factors
from lorabench.methods.saved import attach_saved
from lorabench.models.base import FrozenBase, Precision, load_base
from tests.fast.fast_cases import FAMILIES, alone_nll, batches, packed, settings

TinyModel = Callable[[str], Path]


@pytest.fixture
def strong_model(tiny_model: TinyModel, tmp_path: Path) -> TinyModel:
    """Tiny models whose weights have a usual size, so that what PiSSA takes out of them matters."""

    def make(family: str) -> Path:
        model = AutoModelForCausalLM.from_pretrained(tiny_model(family), dtype=torch.float32)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() > 1 and "embed" not in name and "wte" not in name:
                    weight.mul_(6.0)
        model.save_pretrained(tmp_path / family)
        return tmp_path / family

    return make


def trained(folder: Path, precision: Precision = "fp32", **changes: Any) -> tuple[FrozenBase, Adapter]:
    base = load_base(folder, precision=precision, device="cpu")
    adapter = attach(base, settings(method="pissa", **changes), seed=0)
    optimizer = torch.optim.Adam(adapter.parameters, lr=3e-3)
    for batch in batches(base, 4):
        torch.autograd.backward(base.loss(batch) / batch.num_scored)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return base, adapter


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changes", [{}, {"alpha": 3.0, "rank": 5}, {"target_modules": "mlp"}], ids=str)
def test_plain_peft_reads_what_was_scored(
    strong_model: TinyModel, family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = strong_model(family)
    base, adapter = trained(folder, **changes)
    batch = packed([(9, 30, 2)], base.model.config.vocab_size)
    in_training = base.token_nll(batch).double()
    with adapter.as_saved():
        scored = base.token_nll(batch).double()
        adapter.save(tmp_path / "adapter")
    assert base.execution.kind == "fast"
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    untouched = alone_nll(plain, batch)
    read = alone_nll(PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval(), batch)
    assert not torch.allclose(untouched, read, atol=1e-2)
    assert torch.allclose(scored, read, rtol=1e-5, atol=1e-5)
    assert torch.allclose(in_training, read, rtol=1e-4, atol=1e-4)
    assert torch.equal(base.token_nll(batch).double(), in_training)


@pytest.mark.parametrize("family", ["gpt2", "smollm2"])
def test_w_plus_s_b_a_is_what_was_trained(strong_model: TinyModel, family: str, tmp_path: Path) -> None:
    """As servers read an adapter: each weight plus scaling times B A, from the files alone."""
    folder = strong_model(family)
    base, adapter = trained(folder, alpha=5.0)
    adapter.save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["init_lora_weights"] is True
    assert (config["r"], config["lora_alpha"]) == (8, 10.0)
    assert not config["use_rslora"]
    assert not config["rank_pattern"]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    served = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    num_changed = 0
    for name, module in served.named_modules():
        first = tensors.get(f"base_model.model.{name}.lora_A.weight")
        if first is not None:
            change = config["lora_alpha"] / config["r"] * tensors[f"base_model.model.{name}.lora_B.weight"] @ first
            module.weight.data += change.t() if isinstance(module, Conv1D) else change
            num_changed += 1
    assert 2 * num_changed == len(tensors)
    batch = packed([(9, 30, 2)], base.model.config.vocab_size)
    assert torch.allclose(alone_nll(served, batch), base.token_nll(batch).double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_read_again_it_scores_the_same_bit_for_bit(
    strong_model: TinyModel, family: str, precision: Precision, tmp_path: Path
) -> None:
    folder = strong_model(family)
    base, adapter = trained(folder, precision)
    batch = packed([(9, 30, 2)], base.model.config.vocab_size)
    in_training = base.token_nll(batch).double()
    with adapter.as_saved():
        scored = base.token_nll(batch)
        adapter.save(tmp_path / "adapter")
    fresh = load_base(folder, precision=precision, device="cpu")
    plain = fresh.token_nll(batch).double()
    attach_saved(fresh, tmp_path / "adapter")
    assert torch.equal(fresh.token_nll(batch), scored)
    gain = (plain - in_training).abs().mean()
    difference = float((scored.double() - in_training).mean().abs() / gain)
    assert difference < (1e-5 if precision == "fp32" else 0.1)


def test_training_goes_on_as_if_nothing_had_been_scored(strong_model: TinyModel) -> None:
    ends = []
    for scores_between in (False, True):
        base, adapter = trained(strong_model("smollm2"))
        if scores_between:
            with adapter.as_saved(), adapter.as_saved():
                base.token_nll(batches(base, 1)[0])
        batch = batches(base, 5)[-1]
        torch.autograd.backward(base.loss(batch) / batch.num_scored)
        ends.append([parameter.grad.clone() for parameter in adapter.parameters if parameter.grad is not None])
        assert adapter.num_trainable == sum(parameter.numel() for parameter in adapter.parameters)
    assert ends[0]
    assert all(map(torch.equal, *ends))


def test_factors_of_a_small_difference_keep_its_digits() -> None:
    """In bfloat16 the stacked factors lose what the difference is; ours carry it."""
    generator = torch.Generator().manual_seed(0)
    initial_b, initial_a = (torch.randn(shape, generator=generator) * 10 for shape in ((40, 3), (3, 25)))
    b = initial_b + 1e-3 * torch.randn(initial_b.shape, generator=generator)
    a = initial_a + 1e-3 * torch.randn(initial_a.shape, generator=generator)
    exact = b.double() @ a.double() - initial_b.double() @ initial_a.double()
    first, second = difference_factors(b, a, initial_b, initial_a)
    assert (first.shape, second.shape) == ((40, 6), (6, 25))
    assert torch.allclose(first.double() @ second.double(), exact, rtol=0, atol=1e-6 * float(exact.abs().max()))

    def error(left: torch.Tensor, right: torch.Tensor) -> float:
        product = left.bfloat16().double() @ right.bfloat16().double()
        return float((product - exact).norm() / exact.norm())

    assert error(first, second) < 0.01
    assert error(torch.cat([b, -initial_b], 1), torch.cat([a, initial_a])) > 0.2


def test_ranks_near_the_size_of_a_layer_are_filled_with_zeros() -> None:
    generator = torch.Generator().manual_seed(0)
    b, a, initial_b, initial_a = (torch.randn(s, generator=generator) for s in ((6, 4), (4, 5), (6, 4), (4, 5)))
    first, second = difference_factors(b, a, initial_b, initial_a)
    assert (first.shape, second.shape) == ((6, 8), (8, 5))
    assert torch.allclose(first @ second, b @ a - initial_b @ initial_a, atol=1e-4)
    assert not difference_factors(b * float("nan"), a, initial_b, initial_a)[0].isfinite().all()
