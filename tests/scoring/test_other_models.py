"""Models of families that we do not know: windows that slide, logits that are scaled or capped, other positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import load_base
from lorabench.runs.evaluation import evaluate
from lorabench.tokens.packing import document_segments, make_batch
from tests.scoring.test_evaluation import long_texts, plain_sum, write_jsonl
from tests.weights import draw_weights

VOCABULARY = 448
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
MODELS: dict[str, dict[str, Any]] = {
    "mistral": GROUPED | {"sliding_window": 8},
    "qwen2": GROUPED | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
    "gemma2": GROUPED | {"head_dim": 8, "sliding_window": 8},
    "cohere": GROUPED | {"logit_scale": 0.3},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mamba2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 8,
        "num_heads": 8,
        "head_dim": 8,
        "n_groups": 2,
    },
    "recurrent_gemma": SIZES
    | {"num_hidden_layers": 3, "num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 16},
    "granite": GROUPED | {"logits_scaling": 4.0, "residual_multiplier": 0.5, "attention_multiplier": 0.1},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
        "max_position_embeddings": 64,
    },
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
}


@pytest.fixture
def other_model(tiny_model: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    def make(kind: str) -> Path:
        folder = tmp_path / kind
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **MODELS[kind])
        model = AutoModelForCausalLM.from_config(config).float()
        draw_weights(model, 0.3)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_model("pythia")).save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("kind", MODELS)
def test_scores_are_those_of_the_models_own_forward_pass(
    other_model: Callable[[str], Path], kind: str, tmp_path: Path
) -> None:
    folder, texts = other_model(kind), long_texts()
    result = evaluate(str(folder), write_jsonl(tmp_path / "a.jsonl", texts), context_length=48, precision="fp32")
    nats, num_tokens = plain_sum(folder, None, texts, 48, 48)
    assert result["num_tokens"] == num_tokens
    assert result["negative_log_likelihood"] == pytest.approx(nats, rel=1e-5)


def test_an_adapter_learns_on_the_same_path(other_model: Callable[[str], Path]) -> None:
    base = load_base(other_model("cohere"), precision="fp32", device="cpu")
    tokens = np.random.default_rng(0).integers(1, VOCABULARY, size=50).astype(np.int32)
    batch = make_batch([[segment] for segment in document_segments(0, tokens, prefix=0, context_length=32)])
    before = float(base.token_nll(batch).sum())
    adapter = attach(base, AdapterSettings(rank=4, dropout=0.2), seed=0)
    assert base.execution.kind == "reference"
    assert float(base.token_nll(batch).sum()) == pytest.approx(before)
    optimizer = torch.optim.Adam([parameter for _, parameter in adapter.named_parameters()], lr=0.01)
    for _ in range(10):
        loss = base.loss(batch)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    assert float(base.token_nll(batch).sum()) < 0.9 * before
    adapter.detach()
    assert float(base.token_nll(batch).sum()) == pytest.approx(before)
