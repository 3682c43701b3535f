"""Every family that is declared as a descendant of Llama trains as in Transformers and PEFT, documents packed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from lorabench.fast.choice import kernels_for
from lorabench.fast.kernels import PlainKernels
from lorabench.fast.known import can_pack
from lorabench.methods.attach import attach
from lorabench.models.base import FrozenBase
from tests.fast.fast_cases import losses_and_gradients, packed, random_base, randomise, settings
from tests.weights import draw_weights

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {
    "vocab_size": 90, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
HALF = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [2.0] * 6, "short_factor": [1.1] * 6,
    "original_max_position_embeddings": 40,
}  # fmt: skip
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 12}
GEMMA3_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3-scaling": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-linear-scaling": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "llama-yarn": ("Llama", {"rope_parameters": YARN}),
    "mistral": ("Mistral", {"sliding_window": 12, "head_dim": 16}),
    "mistral-whole": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2-sliding": ("Qwen2", {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "phi3": ("Phi3", {"sliding_window": 12, "resid_pdrop": 0.1}),
    "phi4-mini": ("Phi3", {"rope_parameters": {**LONG, "partial_rotary_factor": 1.0}}),
    "phi4-partial": ("Phi3", {"rope_parameters": HALF}),
    "olmo2": ("Olmo2", {}),
    "gemma2": ("Gemma2", {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma2-uncapped": ("Gemma2", {**GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma3": ("Gemma3", {**GEMMA, "sliding_window_pattern": 2, "rope_parameters": GEMMA3_ROPE}),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2}),
    "granite": (
        "Granite",
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2, "logits_scaling": 2.0},
    ),
    "stablelm": ("StableLm", {"rope_parameters": HALF}),
    "stablelm-parallel": ("StableLm", {"rope_parameters": HALF, "use_parallel_residual": True, "use_qkv_bias": True}),
}
LONG_ROWS = ((20, 1, 11, 60), (33, 2))


REFERENCE_ALONE = {"phi4-mini"}
"""Frequencies of all documents in a pass depend on the longest."""


def make_base(name: str) -> FrozenBase:
    prefix, changes = MODELS[name]
    config_name = "Gemma3TextConfig" if prefix == "Gemma3" else f"{prefix}Config"
    config = getattr(transformers, config_name)(**{**SIZES, "pad_token_id": None, **changes})
    config._attn_implementation = "eager"
    base = random_base(getattr(transformers, f"{prefix}ForCausalLM"), config)
    draw_weights(base.model, 0.2)
    generator = torch.Generator().manual_seed(5)
    for parameter in base.model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    base.choose_path()
    return base


def alone_gradients(base: FrozenBase, batch: Any, parameters: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """The mean loss and its gradients, each document by itself through the model's own eager forward pass."""
    total = torch.zeros(())
    for start, end in itertools.pairwise(batch.segment_starts):
        ids, targets = (torch.from_numpy(values[start:end]) for values in (batch.input_ids, batch.targets))
        logits = base.model(input_ids=ids[None], use_cache=False).logits[0]
        total = total + torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (total / batch.num_scored).backward()
    gradients = {name: parameter.grad for name, parameter in parameters.items()}
    return float(total.detach()) / batch.num_scored, gradients


@pytest.mark.parametrize(
    ("name", "kernels"),
    [*((name, "compiled") for name in MODELS), *((name, "torch") for name in ("mistral", "gemma2", "olmo2", "phi3"))],
)
def test_packed_documents_train_as_each_does_alone(name: str, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = kernels_for("cpu") if kernels == "compiled" else PlainKernels()
    assert chosen.name == kernels
    monkeypatch.setattr("lorabench.models.base.kernels_for", lambda *which: chosen)
    base, other = make_base(name), make_base(name)
    ours, theirs = (attach(each, settings(), seed=3) for each in (base, other))
    for adapter in (ours, theirs):
        randomise(adapter)
    assert base.execution.kind == "fast", base.execution
    batch = packed(LONG_ROWS, 90, seed=1)
    ((loss, gradients),) = losses_and_gradients(base, ours, [batch])
    wanted_loss, wanted = alone_gradients(other, batch, dict(theirs.named_parameters()))
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert gradients.keys() == wanted.keys()
    for key, gradient in gradients.items():
        assert (gradient - wanted[key]).abs().max() <= 1e-4 * wanted[key].abs().max(), key


@pytest.mark.parametrize("name", [name for name in MODELS if name not in REFERENCE_ALONE])
def test_transformers_own_modules_take_packed_documents_without_a_mask(name: str) -> None:
    base, other = make_base(name), make_base(name)
    ours, theirs = (attach(each, settings(method="dora"), seed=3) for each in (base, other))
    for adapter in (ours, theirs):
        randomise(adapter, size=0.05)
    base.use_reference_path("the test asks for it")
    assert can_pack(base.model)
    batch = packed(LONG_ROWS, 90, seed=1)
    score = float(base.token_nll(batch).sum()) / batch.num_scored
    ((loss, gradients),) = losses_and_gradients(base, ours, [batch])
    wanted_loss, wanted = alone_gradients(other, batch, dict(theirs.named_parameters()))
    assert (loss, score) == (pytest.approx(wanted_loss, rel=1e-5), pytest.approx(wanted_loss, rel=1e-5))
    for key, gradient in gradients.items():
        assert (gradient - wanted[key]).abs().max() <= 1e-4 * wanted[key].abs().max(), key
