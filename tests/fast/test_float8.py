"""Bases in eight-bit floats: weights are the nearest codes, training is PEFT's, and gradients pass through them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers.pytorch_utils import Conv1D

from lorabench.core.errors import ModelError
from lorabench.fast.float8 import Float8Linear, hold_in_float8
from lorabench.models.base import load_base
from tests.fast.fast_cases import FAMILIES, batches, settings
from tests.fast.test_fast import assert_same_training

pytestmark = pytest.mark.usefixtures("one_thread")


def nearest(weight: np.ndarray) -> np.ndarray:
    """Each row [out, in] by the nearest number of E4M3: 4 bits of exponent, 3 of mantissa; halfway by the even one."""
    magnitudes = [m / 8 * 2.0**-6 for m in range(8)]
    magnitudes += [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)]
    numbers = np.array(magnitudes)
    weight = weight.astype(np.float32)
    scales = np.abs(weight).max(axis=1, keepdims=True) / np.float32(numbers.max())
    wanted = np.abs(weight) / scales
    places = np.clip(np.searchsorted(numbers, wanted), 1, len(numbers) - 1)
    low, high = numbers[places - 1], numbers[places]
    is_low = np.where(wanted - low == high - wanted, places % 2 == 1, wanted - low < high - wanted)
    return np.sign(weight) * np.where(is_low, low, high) * scales


def round_weights(model: Any) -> None:
    """In place, whatever is neither the head nor an embedding, by `nearest`."""
    head = model.get_output_embeddings()
    for module in model.modules():
        if module is not head and isinstance(module, torch.nn.Linear | Conv1D):
            weight = module.weight.detach().double().numpy()
            rounded = nearest(weight.T).T if isinstance(module, Conv1D) else nearest(weight)
            module.weight.data = torch.from_numpy(rounded).float()


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_rounded_weights(tiny_model: Callable[[str], Path], family: str) -> None:
    folder = tiny_model(family)
    base = load_base(folder, precision="fp32", device="cpu", quantization="fp8")
    assert base.execution.kind == "fast"
    plain = load_base(folder, precision="fp32", device="cpu")
    (batch,) = batches(base, 1)
    unrounded = plain.token_nll(batch)
    round_weights(plain.model)
    plain.use_reference_path("a test")
    scored = base.token_nll(batch)
    torch.testing.assert_close(scored, plain.token_nll(batch), rtol=0, atol=3e-5)
    assert (scored - unrounded).abs().max() > 3e-4
    base.use_reference_path("a test")
    torch.testing.assert_close(base.token_nll(batch), scored, rtol=1e-5, atol=1e-5)
    held = [module for module in base.model.modules() if isinstance(module, Float8Linear)]
    weights, rows = sum(layer.codes.numel() for layer in held), sum(layer.out_features for layer in held)
    assert plain.num_bytes - base.num_bytes == 3 * weights - 4 * rows


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.2}, {"method": "dora"}], ids=str)
def test_training_is_that_of_peft(tiny_model: Callable[[str], Path], changes: Any) -> None:
    folder = tiny_model("smollm2")
    assert_same_training(
        lambda: load_base(folder, precision="fp32", device="cpu", quantization="fp8"), settings(**changes), steps=4
    )


def test_gradients_are_those_of_the_rounded_base(tiny_model: Callable[[str], Path]) -> None:
    """Through PEFT's own modules, after a pass that scores."""
    gradients = []
    for quantization in ("fp8", "none"):
        base = load_base(tiny_model("smollm2"), precision="fp32", device="cpu", quantization=quantization)  # type: ignore[arg-type]
        if quantization == "none":
            round_weights(base.model)
        (batch,) = batches(base, 1)
        ids = torch.from_numpy(batch.input_ids)[None]
        torch.manual_seed(1)
        adapted: Any = get_peft_model(base.model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
        trained = [parameter for name, parameter in adapted.named_parameters() if "lora_" in name]
        for parameter in trained:
            torch.nn.init.normal_(parameter, std=0.1)
        with torch.inference_mode():
            adapted(input_ids=ids)
        adapted(input_ids=ids, labels=ids).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trained]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_bfloat16_weights_are_rounded_once() -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    weight[2] = 0
    layer = Float8Linear(weight, None)
    expected = torch.from_numpy(np.nan_to_num(nearest(np.where(weight.float() == 0, 1e-30, weight.float().double()))))
    assert layer.weight.dtype is torch.bfloat16
    torch.testing.assert_close(layer.weight.double(), expected, rtol=2**-8, atol=1e-20)
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_a_weight_that_is_not_finite_is_said(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: Any) -> None:
        model.get_submodule("model.layers.0.mlp.up_proj").weight.data[0, 0] = float("nan")
        hold_in_float8(model)

    monkeypatch.setattr("lorabench.models.base.hold_in_float8", spoil)
    with pytest.raises(ModelError, match=r"cannot be held in fp8: a weight is not finite"):
        load_base(tiny_model("smollm2"), precision="fp32", device="cpu", quantization="fp8")
