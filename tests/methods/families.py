"""Tiny models of many architectures, with random weights, as Transformers builds and saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 96
_PLAIN = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
_GROUPED = _PLAIN | {"num_key_value_heads": 1}
_WIDE = _GROUPED | {"head_dim": 8}
_GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
_OPT = {
    "hidden_size": 16,
    "ffn_dim": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}

DENSE: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "mistral": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": _WIDE,
    "phi": _PLAIN,
    "phi3": _GROUPED | {"pad_token_id": 0},
    "gemma": _WIDE,
    "gemma2": _WIDE,
    "gemma3_text": _WIDE,
    "gpt2": _GPT2,
    "openai-gpt": _GPT2,
    "gptj": _GPT2 | {"rotary_dim": 4},
    "gpt_neo": {
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 32,
    },
    "gpt_neox": _PLAIN,
    "gpt_bigcode": _GPT2,
    "codegen": {**_GPT2, "n_head": 4, "rotary_dim": 4},
    "opt": _OPT | {"word_embed_proj_dim": 8},
    "falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "alibi": False},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "mpt": {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 32},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4},
    "rwkv": {"hidden_size": 16, "num_hidden_layers": 2, "context_length": 32},
    "recurrent_gemma": _PLAIN | {"num_hidden_layers": 3, "lru_width": 16, "attention_window_size": 16, "head_dim": 8},
    "stablelm": _GROUPED,
    "olmo2": _GROUPED,
    "granite": _GROUPED,
    "starcoder2": _GROUPED,
    "cohere": _GROUPED,
    "smollm3": _GROUPED | {"pad_token_id": 0},
    "bert": _PLAIN | {"is_decoder": True},
    "ctrl": _GPT2 | {"dff": 24},
    "xglm": {"d_model": 16, "ffn_dim": 24, "num_layers": 2, "attention_heads": 2, "max_position_embeddings": 32},
    "exaone": _GROUPED,
    "olmo_hybrid": _GROUPED | {"pad_token_id": 0, "linear_num_key_heads": 2, "linear_num_value_heads": 2},
}
"""Architecture -> its configuration."""

WITH_EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": _GROUPED | {"num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen3_moe": _WIDE | {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12},
    "qwen2_moe": _GROUPED
    | {
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
        "shared_expert_intermediate_size": 12,
    },
    "gpt_oss": _WIDE | {"num_local_experts": 3, "num_experts_per_tok": 2},
    "granitemoe": _GROUPED | {"num_local_experts": 3, "num_experts_per_tok": 2},
}


def save_tiny(architecture: str, folder: Path, **changes: Any) -> Any:
    """Build and save a model; returns it, float32."""
    torch.manual_seed(0)
    settings = (DENSE | WITH_EXPERTS)[architecture] | changes
    config = AutoConfig.for_model(architecture, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **settings)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    model.save_pretrained(folder)
    return model
