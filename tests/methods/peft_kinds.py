"""Configurations of every kind of adapter that PEFT knows, and tiny models that they fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import AutoConfig, AutoModelForCausalLM

from tests.weights import draw_weights

VOCABULARY = 96
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_GROUPED = _SIZES | {"num_key_value_heads": 2}


@dataclass(frozen=True)
class Family:
    """A small model of a family, and names of its modules."""

    sizes: dict[str, Any]
    attention: str
    mlp: str
    norm: str
    embedding: str


_LLAMA_NAMES = ("q_proj", "down_proj", "input_layernorm", "embed_tokens")
FAMILIES = {
    "llama": Family(_GROUPED, *_LLAMA_NAMES),
    "gemma": Family(_GROUPED | {"head_dim": 8}, *_LLAMA_NAMES),
    "gpt2": Family({"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}, "c_attn", "c_fc", "ln_1", "wte"),
    "gpt_neox": Family(_SIZES, "query_key_value", "dense_4h_to_h", "input_layernorm", "embed_in"),
    "qwen2": Family(_GROUPED, *_LLAMA_NAMES),
}

WITHOUT_TEXT_ALONE = {"XLORA", "MULTITASK_PROMPT_TUNING", "POLY"}
"""They need more than a text: other adapters, or the number of a task."""
REFUSED = {
    "LILY": "the tokens after them",
    "VBLORA topk": "does not take over",
    "PVERA sampled": "its scores are random",
    "lora invoked": "alora_invocation_tokens",
    "SHADOW": "",
}
"""What is refused though PEFT loads it: it looks ahead, or cannot be checked against its file."""
_PROMPTS: dict[str, dict[str, Any]] = {
    "PROMPT_TUNING": {},
    "P_TUNING": {"encoder_hidden_size": 16},
    "PREFIX_TUNING": {},
    "CARTRIDGE": {},
    "P_TUNING lstm": {"encoder_hidden_size": 16, "encoder_reparameterization_type": "LSTM"},
    "PREFIX_TUNING projected": {"prefix_projection": True, "encoder_hidden_size": 16},
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 50, "scaling": 50.0},
    "MISS": {"r": 4},
    "OFT": {"r": 0, "oft_block_size": 4},
    "PVERA sampled": {"r": 4, "sample_at_inference": True},
    "RANDLORA drawn again": {"r": 4, "save_projection": False},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "VBLORA": {"num_vectors": 8, "vector_length": 4},
    "VBLORA topk": {"num_vectors": 8, "vector_length": 4, "save_only_topk_weights": True},
    "VERA drawn again": {"r": 4, "save_projection": False},
    "WAVEFT": {"n_frequency": 64},
}
_VARIANTS = {kind for kind in (*_PROMPTS, *_SETTINGS) if " " in kind}
KINDS = sorted({kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} - WITHOUT_TEXT_ALONE | _VARIANTS)
"""Every kind that the installed PEFT knows, some with variants."""


def make_config(kind: str, family: Family) -> Any:
    """The configuration of a kind, on the attention's and the MLP's layers where it goes on layers."""
    name = kind.split()[0]
    layers: dict[str, Any] = {"target_modules": [family.attention, family.mlp]}
    if kind in _PROMPTS:
        settings = {"num_virtual_tokens": 4, **_PROMPTS[kind]}
    elif name == "CPT":
        settings = {"cpt_token_ids": [3, 4, 5], "cpt_mask": [1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3]}
    elif name == "ADAPTION_PROMPT":
        settings = {"adapter_len": 4, "adapter_layers": 1}
    elif name == "IA3":
        settings = layers | {"feedforward_modules": [family.mlp]}
    elif name == "LN_TUNING":
        settings = {"target_modules": [family.norm]}
    elif name == "TRAINABLE_TOKENS":
        settings = {"target_modules": [family.embedding], "token_indices": [3, 70, 71, 72]}
    else:
        settings = layers | _SETTINGS.get(kind, {})
    (config_class,) = (known for kind_, known in PEFT_TYPE_TO_CONFIG_MAPPING.items() if kind_.value == name)
    return config_class(task_type="CAUSAL_LM", **settings)


def lora_configs(family: Family) -> dict[str, LoraConfig]:
    """What LoRA can be set to, by a name for each."""
    both, head = [family.attention, family.mlp], r".*(lm_head|embed_out)"
    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "patterns": {"rank_pattern": {family.mlp: 2}, "alpha_pattern": {family.attention: 3}},
        "dora": {"use_dora": True},
        "rslora": {"use_rslora": True},
        "bias of the base": {"bias": "all"},
        "bias of the adapter": {"lora_bias": True},
        "embedding": {"target_modules": [family.attention, family.embedding]},
        "embedding alone": {"target_modules": [family.embedding]},
        "embedding, dora": {"target_modules": [family.embedding], "use_dora": True},
        "head": {"target_modules": head},
        "whole norm and embedding": {"modules_to_save": [family.norm, family.embedding]},
        "tokens": {"trainable_token_indices": [70, 71]},
        "one layer": {"layers_to_transform": [1]},
        "pissa": {"init_lora_weights": "pissa"},
    }
    return {
        name: LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "target_modules": both} | more)
        for name, more in settings.items()
    }


def save_model(kind: str, folder: Path, **more: Any) -> Path:
    """A model whose parts are far from linear, with seeded random weights."""
    torch.manual_seed(0)
    sizes = FAMILIES[kind].sizes if kind in FAMILIES else _GROUPED
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **(sizes | more))
    model = AutoModelForCausalLM.from_config(config).float()
    draw_weights(model, 0.15)
    model.save_pretrained(folder)
    return folder
