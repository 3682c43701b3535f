"""Bases in four bits: the fast path makes each weight whole for its products, and trains as PEFT does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lorabench.methods.attach import attach
from lorabench.models.base import load_base
from tests.fast.fast_cases import FAMILIES, batches, settings
from tests.fast.test_fast import assert_same_training

pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changes", [{}, {"dropout": 0.2}, {"method": "dora"}], ids=str)
def test_training_is_that_of_peft(tiny_model: Callable[[str], Path], family: str, changes: Any) -> None:
    quantization = "nf4" if family in ("gpt2", "gemma") else "nf4-double"
    folder = tiny_model(family)
    assert_same_training(
        lambda: load_base(folder, precision="fp32", device="cpu", quantization=quantization),
        settings(**changes),
        steps=6,
    )


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_scores_are_those_of_transformers(tiny_model: Callable[[str], Path], quantization: Any) -> None:
    base = load_base(tiny_model("smollm2"), precision="fp32", device="cpu", quantization=quantization)
    is_fast = quantization != "int8"  # which rounds what goes into its products, too
    assert (base.execution.kind == "fast") is is_fast
    (batch,) = batches(base, 1)
    scored = base.token_nll(batch)
    base.use_reference_path("a test")
    torch.testing.assert_close(base.token_nll(batch), scored, rtol=1e-5, atol=1e-5)


def test_no_whole_weight_is_kept(tiny_model: Callable[[str], Path]) -> None:
    """Between passes nothing but the codes is there; an adapter and its gradients change none of them."""
    base = load_base(tiny_model("smollm2"), precision="fp32", device="cpu", quantization="nf4")
    codes = {name: weight.clone() for name, weight in base.model.named_parameters() if weight.dtype is torch.uint8}
    assert len(codes) > 6
    adapter = attach(base, settings(), seed=0)
    (batch,) = batches(base, 1)
    base.loss(batch).backward()
    assert base.decoder is not None
    assert all(parameter.grad is not None for parameter in adapter.parameters)
    adapter.detach()
    for name, weight in base.model.named_parameters():
        assert name not in codes or torch.equal(weight, codes[name])
    base.free()
