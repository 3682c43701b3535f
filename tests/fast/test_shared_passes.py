"""Adapters that PEFT computes token by token: documents share a pass, and score and train as each by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from lorabench.methods.attach import attach
from lorabench.methods.registry import METHODS
from lorabench.models.base import FrozenBase
from tests.fast.fast_cases import alone_nll, packed, random_base, randomise

METHODS_OF_PEFT = {
    "oft": {"block_size": 8},
    "boft": {},
    "fourierft": {"num_frequencies": 20},
    **{name: {} for name in ("adalora", "hra", "ia3", "ln_tuning", "loha", "lokr", "miss", "randlora")},
}


def small_llama() -> FrozenBase:
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    return random_base(transformers.LlamaForCausalLM, config)


def gradients(adapter: Any) -> list[torch.Tensor]:
    found = [parameter.grad.clone() for parameter in adapter.parameters]
    for parameter in adapter.parameters:
        parameter.grad = None
    return found


@pytest.mark.parametrize("method", METHODS_OF_PEFT)
def test_documents_share_a_pass_as_if_each_were_alone(method: str) -> None:
    base = small_llama()
    own: dict[str, Any] = METHODS_OF_PEFT[method]
    adapter = attach(base, METHODS.get(method).settings(method=method, rank=4, **own), seed=0)
    randomise(adapter)
    assert base.execution.kind == "reference"
    assert "one document a pass" not in base.execution.reason
    batch = packed([(5, 40, 1, 18), (64,), (2, 2, 2)], 96)
    wanted = alone_nll(base.model, batch)
    assert torch.allclose(base.token_nll(batch).double(), wanted, rtol=1e-6, atol=1e-5)
    loss = base.loss(batch)
    torch.autograd.backward(loss)
    together = gradients(adapter)
    for start, end in zip(batch.segment_starts[:-1], batch.segment_starts[1:], strict=True):
        ids, targets = (torch.from_numpy(array[start:end]) for array in (batch.input_ids, batch.targets))
        logits = base.model(input_ids=ids[None], use_cache=False).logits[0]
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    for ours, alone in zip(together, gradients(adapter), strict=True):
        assert (ours - alone).abs().max() <= 1e-4 * alone.abs().max()


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning"])
def test_what_stands_before_each_text_is_given_to_each_by_itself(method: str) -> None:
    base = small_llama()
    attach(base, METHODS.get(method).settings(method=method), seed=0)
    assert base.execution.reason.endswith("one document a pass")
