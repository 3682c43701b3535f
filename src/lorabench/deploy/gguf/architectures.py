"""What llama.cpp calls an architecture: which of its settings a configuration gives, and how its tensors lie.

The names of tensors come from the gguf package; what is here is what differs between a tensor in Transformers' layout
and the one that llama.cpp computes with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from lorabench.core.errors import ModelError

Floats = NDArray[np.float32]
Config = Mapping[str, Any]
_OLD_BUFFERS = (
    *(".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"),
    ".rotary_emb.inv_freq",
)
"""Masks and frequencies that old folders keep among the weights."""
Layout = Callable[[str, Floats, Config], Floats]
"""(name in Transformers, tensor [out, …], configuration) -> the tensor as llama.cpp wants it."""


@dataclass(frozen=True)
class Architecture:
    """One of llama.cpp's architectures, for one `model_type` of Transformers."""

    arch: gguf.MODEL_ARCH
    settings: Callable[[gguf.GGUFWriter, Config], None]
    layout: Layout
    refuse: Callable[[Config], str | None] = lambda config: None
    """Why a configuration of this type cannot be written, where it cannot."""

    @property
    def name(self) -> str:
        """As it stands in the file."""
        return str(gguf.MODEL_ARCH_NAMES[self.arch])


def architecture_of(config: Config, where: str) -> Architecture:
    """The architecture of a model folder. Raises ModelError where llama.cpp's form of it is not known."""
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{where}: no GGUF file is written for models of type {kind[:80]}; accepted: {', '.join(ARCHITECTURES)}"
        )
    architecture = ARCHITECTURES[kind]
    reason = _scaled_rotation(config) or architecture.refuse(config)
    if reason:
        raise ModelError(f"{where}: no GGUF file is written for this {kind} model: {reason}")
    return architecture


def rope_of(config: Config) -> dict[str, Any]:
    """The settings of the rotary embedding, as Transformers 5 (`rope_parameters`) and earlier ones wrote them."""
    found: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    values = dict(found.get("full_attention", found))
    values.setdefault("rope_theta", config.get("rope_theta") or config.get("rotary_emb_base") or 10_000.0)
    values.setdefault("rope_type", values.get("type", "default"))
    return values


def rope_factors(config: Config) -> Floats | None:
    """By which llama.cpp divides each frequency of Llama 3's stretched rotation [head width / 2]; None elsewhere."""
    rope = rope_of(config)
    if rope["rope_type"] != "llama3":
        return None
    width = head_width(config)
    frequencies = rope["rope_theta"] ** -(np.arange(0, width, 2, dtype=np.float64) / width)
    wavelengths = 2 * math.pi / frequencies
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    original = rope["original_max_position_embeddings"]
    smooth = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    factors: Floats = (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)
    return factors


def head_width(config: Config) -> int:
    """Elements of an attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _scaled_rotation(config: Config) -> str | None:
    kind = rope_of(config)["rope_type"]
    return None if kind in ("default", "llama3", "proportional") else f"its rotation is stretched by {kind!r}"


def _as_it_is(name: str, tensor: Floats, config: Config) -> Floats:
    return tensor


def _gpt2_settings(writer: gguf.GGUFWriter, config: Config) -> None:
    width = config["n_embd"]
    writer.add_context_length(config.get("n_positions") or config["n_ctx"])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(config.get("n_inner") or 4 * width)
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config.get("layer_norm_epsilon", 1e-5))


def _gpt2_layout(name: str, tensor: Floats, config: Config) -> Floats:
    """`Conv1D` keeps its weights as [in, out]."""
    return tensor.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else tensor


def _gpt2_refusal(config: Config) -> str | None:
    if config.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh"):
        return f"its activation is {config['activation_function']!r}"
    if not config.get("scale_attn_weights", True) or config.get("scale_attn_by_inverse_layer_idx"):
        return "its attention is scaled in a way of its own"
    return None


def _neox_settings(writer: gguf.GGUFWriter, config: Config) -> None:
    rope = rope_of(config)
    share = rope.get("partial_rotary_factor") or config.get("rotary_pct", 0.25)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_rope_dimension_count(int(head_width(config) * share))
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_parallel_residual(config.get("use_parallel_residual", True))
    writer.add_layer_norm_eps(config.get("layer_norm_eps", 1e-5))


def _neox_layout(name: str, tensor: Floats, config: Config) -> Floats:
    """Queries, keys and values lie head by head in Transformers; llama.cpp has all queries, then keys, then values."""
    if "query_key_value" not in name:
        return tensor
    heads = config["num_attention_heads"]
    by_head = tensor.reshape(heads, 3, -1, *tensor.shape[1:])
    return np.ascontiguousarray(by_head.swapaxes(0, 1)).reshape(tensor.shape)


def _neox_refusal(config: Config) -> str | None:
    kind = config.get("hidden_act", "gelu")
    return None if kind in ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast") else f"its activation is {kind!r}"


def _llama_like_settings(writer: gguf.GGUFWriter, config: Config) -> None:
    heads = config["num_attention_heads"]
    width = head_width(config)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(rope_of(config)["rope_theta"])
    writer.add_rope_dimension_count(width)


def _llama_layout(name: str, tensor: Floats, config: Config) -> Floats:
    """Transformers rotates a head's halves; llama.cpp's Llama rotates neighbours, so rows are interleaved."""
    if not name.endswith(("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")):
        return tensor
    heads = config["num_attention_heads"]
    if "k_proj" in name:
        heads = config.get("num_key_value_heads") or heads
    halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(tensor.shape)


def _silu_refusal(config: Config) -> str | None:
    kind = config.get("hidden_act", "silu")
    if kind != "silu":
        return f"its activation is {kind!r}"
    return "only a part of each head is rotated" if rope_of(config).get("partial_rotary_factor", 1.0) != 1.0 else None


def _mistral_refusal(config: Config) -> str | None:
    window = config.get("sliding_window")
    if window and window < config["max_position_embeddings"]:
        return f"llama.cpp knows no sliding window ({window} tokens) for it"
    return _silu_refusal(config)


def _qwen_refusal(config: Config) -> str | None:
    if config.get("use_sliding_window"):
        return "llama.cpp knows no sliding window for it"
    return _silu_refusal(config)


def _gemma_layout(name: str, tensor: Floats, config: Config) -> Floats:
    """Gemma's norms multiply by one plus their weight."""
    return tensor + 1 if name.endswith("norm.weight") else tensor


def _gemma2_settings(writer: gguf.GGUFWriter, config: Config) -> None:
    _llama_like_settings(writer, config)
    writer.add_sliding_window(config["sliding_window"])
    if config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def _gemma3_settings(writer: gguf.GGUFWriter, config: Config) -> None:
    _llama_like_settings(writer, config)
    writer.add_sliding_window(config["sliding_window"])


def _gemma_refusal(config: Config) -> str | None:
    kind = config.get("hidden_activation") or config.get("hidden_act") or "gelu_pytorch_tanh"
    return None if kind in ("gelu_pytorch_tanh", "gelu_new", "gelu") else f"its activation is {kind!r}"


def _scaled_gemma_refusal(config: Config) -> str | None:
    scale = config.get("query_pre_attn_scalar")
    if scale is not None and scale != head_width(config):
        return f"its attention is scaled by {scale}, not by the width of a head ({head_width(config)})"
    return _gemma_refusal(config)


def _gemma3_refusal(config: Config) -> str | None:
    layers = config.get("layer_types") or []
    expected = ["full_attention" if place % 6 == 5 else "sliding_attention" for place in range(len(layers))]
    if list(layers) != expected:
        return "llama.cpp expects every sixth layer to see the whole context, and the others a window"
    if config.get("final_logit_softcapping") or config.get("attn_logit_softcapping"):
        return "llama.cpp's Gemma 3 knows no soft-capping"
    return _scaled_gemma_refusal(config)


ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(gguf.MODEL_ARCH.GPT2, _gpt2_settings, _gpt2_layout, _gpt2_refusal),
    "gpt_neox": Architecture(gguf.MODEL_ARCH.GPTNEOX, _neox_settings, _neox_layout, _neox_refusal),
    "llama": Architecture(gguf.MODEL_ARCH.LLAMA, _llama_like_settings, _llama_layout, _silu_refusal),
    "mistral": Architecture(gguf.MODEL_ARCH.LLAMA, _llama_like_settings, _llama_layout, _mistral_refusal),
    "qwen2": Architecture(gguf.MODEL_ARCH.QWEN2, _llama_like_settings, _as_it_is, _qwen_refusal),
    "qwen3": Architecture(gguf.MODEL_ARCH.QWEN3, _llama_like_settings, _as_it_is, _qwen_refusal),
    "gemma": Architecture(gguf.MODEL_ARCH.GEMMA, _llama_like_settings, _gemma_layout, _gemma_refusal),
    "gemma2": Architecture(gguf.MODEL_ARCH.GEMMA2, _gemma2_settings, _gemma_layout, _scaled_gemma_refusal),
    "gemma3_text": Architecture(gguf.MODEL_ARCH.GEMMA3, _gemma3_settings, _gemma_layout, _gemma3_refusal),
}
"""By Transformers' `model_type`."""


def tensor_names(architecture: Architecture, num_layers: int) -> Callable[[str], str | None]:
    """How llama.cpp calls a tensor of Transformers; None for one that it does not know."""
    names = gguf.get_tensor_name_map(architecture.arch, num_layers)
    return lambda name: names.get_name(name, try_suffixes=(".weight", ".bias"))


def num_layers_of(config: Config) -> int:
    """Layers of the model."""
    return int(config.get("num_hidden_layers") or config["n_layer"])


def written_tensors(
    architecture: Architecture, config: Config, tensors: Iterator[tuple[str, Floats]]
) -> Iterator[tuple[str, Floats]]:
    """Tensors by llama.cpp's names and in its layout. Raises ModelError for one that has no place there."""
    name_of = tensor_names(architecture, num_layers_of(config))
    for name, tensor in tensors:
        if name.endswith(_OLD_BUFFERS):
            continue
        new = name_of(name) or name_of(f"transformer.{name}")
        if new is None:
            raise ModelError(f"llama.cpp's {architecture.name} has no place for the tensor {name}")
        yield new, architecture.layout(name, tensor, config)
