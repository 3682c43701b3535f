from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.hub.model_repositories import byte_level_tokenizer
from tests.runs.conftest import (  # noqa: F401 - fixtures
    corpus,
    experiment,
    finished,
    finished_output,
    own_cache,
    shared_cache,
)
from tests.weights import draw_weights

VOCABULARY = 320
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "pythia": _LLAMA
    | {"model_type": "gpt_neox", "num_key_value_heads": 4, "rotary_pct": 0.5, "hidden_act": "gelu_new"},
    "llama": _LLAMA | {"model_type": "llama", "tie_word_embeddings": True},
    "llama3": _LLAMA | {"model_type": "llama", "rope_parameters": _STRETCHED},
    "mistral": _LLAMA | {"model_type": "mistral", "sliding_window": None, "head_dim": 16},
    "qwen2": _LLAMA | {"model_type": "qwen2"},
    "qwen3": _LLAMA | {"model_type": "qwen3", "head_dim": 16},
    "gemma": _LLAMA | {"model_type": "gemma", "head_dim": 16},
    "gemma2": _LLAMA | {"model_type": "gemma2", "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16},
    "gemma3": _LLAMA
    | {
        "model_type": "gemma3_text",
        "num_hidden_layers": 6,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 16,
    },
}
"""Tiny models of the architectures that GGUF files are written for."""
WITHOUT_GGUF: dict[str, dict[str, Any]] = {
    "olmo2": _LLAMA | {"model_type": "olmo2"},
    "phi3": _LLAMA | {"model_type": "phi3"},
}
"""Such of architectures that none is written for."""

ModelMaker = Callable[[str], Path]


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> ModelMaker:
    """Folders of tiny models of both tables, their parts far from linear, with a byte-level tokenizer."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("random") / name
            torch.manual_seed(0)
            special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
            config = AutoConfig.for_model(**(CONFIGURATIONS | WITHOUT_GGUF)[name], **special, vocab_size=VOCABULARY)
            model = AutoModelForCausalLM.from_config(config).float()
            draw_weights(model, 0.15)
            with torch.no_grad():
                for key, parameter in model.named_parameters():
                    if parameter.dim() == 1 and "norm" in key:
                        parameter.add_(torch.randn_like(parameter) * 0.1)
            model.save_pretrained(folder)
            byte_level_tokenizer(VOCABULARY - 8, ["<|endoftext|>"]).save(str(folder / "tokenizer.json"))
            (folder / "tokenizer_config.json").write_text(
                '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>", '
                '"eos_token": "<|endoftext|>"}'
            )
            made[name] = folder
        return made[name]

    return make
