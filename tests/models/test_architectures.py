"""Architectures without a length limit or without attention: documents go through them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lorabench.methods.attach import attach
from lorabench.models.base import load_base
from lorabench.tokens.packing import PackedBatch
from tests.fast.fast_cases import alone_nll, losses_and_gradients, packed, randomise, settings
from tests.weights import draw_weights

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, "all-linear"),
    "mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, "all-linear"),
    "mamba2": (
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2},
        "all-linear",
    ),
    "rwkv": ({"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32}, "all-linear"),
    "recurrent_gemma": (
        {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 16,
        },
        "all-linear",
    ),
    "mpt": ({"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}, "all-linear"),
}  # fmt: skip


def save(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=90, bos_token_id=0, eos_token_id=0, pad_token_id=0, **MODELS[kind][0]
    )
    model = AutoModelForCausalLM.from_config(config).float()
    draw_weights(model, 0.1)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", MODELS)
def test_documents_are_scored_and_trained_one_by_one(kind: str, tmp_path: Path) -> None:
    base = load_base(save(kind, tmp_path / kind), precision="fp32", device="cpu")
    assert base.execution.kind == "reference"
    work: Sequence[PackedBatch] = [packed(((20, 1, 11), (33, 2)), 90, seed) for seed in (1, 2)]
    wanted = alone_nll(base.model, work[0])
    assert torch.allclose(base.token_nll(work[0]).double(), wanted, rtol=1e-5, atol=1e-5)
    adapter = attach(base, settings(target_modules=MODELS[kind][1]), seed=0)
    randomise(adapter)
    wanted = alone_nll(base.model, work[0])
    (first, gradients), _ = losses_and_gradients(base, adapter, work)
    assert first == pytest.approx(float(wanted.sum()) / work[0].num_scored, rel=1e-5)
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())
