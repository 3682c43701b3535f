"""Builds a model at its real size with seeded random weights, so that speed and memory can be measured without a hub.

The architecture comes from the model's own config.json where it is here or the hub has told it, else from what the
catalogue states. Weights are allocated once, in the wanted type, and filled once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lorabench.core.errors import ModelError
from lorabench.models.base import DTYPES, FrozenBase, Precision, freeze
from lorabench.models.entry import ModelEntry

if TYPE_CHECKING:
    from lorabench.models.planning import ModelPlan

HEAD_WIDTHS = {
    **dict.fromkeys(("gpt2", "gpt_neox", "llama", "qwen2", "granite", "stablelm"), 64),
    **dict.fromkeys(("mistral", "qwen3", "phi3", "olmo2", "smollm3"), 128),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), 256),
}
"""Width of an attention head where an entry's `config` has no head_dim: that of most published models of the type."""
STANDARD_DEVIATION = 0.02


def load_random(plan: ModelPlan, *, precision: Precision, device: str, seed: int = 0) -> FrozenBase:
    """The planned model with random weights. Raises ModelError where its architecture is not known."""
    from transformers import AutoConfig

    stated = plan.source.config_json()
    if plan.folder is not None:
        config = AutoConfig.from_pretrained(str(plan.folder), local_files_only=True, trust_remote_code=False)
    elif stated is not None:
        config = AutoConfig.for_model(**stated)
    elif isinstance(plan.source, ModelEntry):
        config = config_of_entry(plan.source)
    else:
        raise ModelError(f"model {plan.name}: it is not here, and its entry states no sizes")
    model = build(config.get_text_config(), DTYPES[precision])
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if num_parameters != plan.shape.num_parameters:
        raise ModelError(
            f"model {plan.name}: {plan.shape.num_parameters} parameters are expected and its architecture has "
            f"{num_parameters}"
        )
    model.to(device)
    fill(model, seed)
    return freeze(model, torch.device(device), precision)


def config_of_entry(entry: ModelEntry) -> Any:
    """Transformers' configuration of a catalogue entry. Raises ModelError where its sizes do not make a known one."""
    from transformers import AutoConfig

    model_type, modules = entry.family.replace("-", "_"), entry.linear_modules
    if model_type not in HEAD_WIDTHS:
        raise ModelError(
            f"model {entry.name}: no random weights can be made for the family {entry.family}; accepted are "
            f"{', '.join(sorted(HEAD_WIDTHS))}, and folders and hub ids of any family"
        )
    width = entry.head_width or HEAD_WIDTHS[model_type]
    left = entry.num_parameters - entry.num_layers * sum(inputs * outputs for inputs, outputs in modules.values())
    sizes: dict[str, Any] = {
        "vocab_size": entry.vocabulary_size,
        "max_position_embeddings": entry.max_context_length,
        "hidden_size": entry.hidden_size,
        "num_hidden_layers": entry.num_layers,
        "tie_word_embeddings": left < 2 * entry.vocabulary_size * entry.hidden_size,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
    }
    try:
        return AutoConfig.for_model(model_type, **(sizes | _layer_sizes(model_type, modules, width) | entry.config))
    except KeyError as error:
        raise ModelError(f"model {entry.name}: its entry lacks the linear module {error.args[0]}") from None


def _layer_sizes(model_type: str, modules: Mapping[str, tuple[int, int]], width: int) -> dict[str, int]:
    """What the linear modules of a layer say in a configuration, for heads of `width`. Raises KeyError."""
    if model_type == "gpt2":
        return {"num_attention_heads": modules["attn.c_proj"][0] // width, "n_inner": modules["mlp.c_fc"][1]}
    if model_type == "gpt_neox":
        heads, inner = modules["attention.dense"][0] // width, modules["mlp.dense_h_to_4h"][1]
        return {"num_attention_heads": heads, "intermediate_size": inner}
    queries = modules["self_attn.o_proj"][0]
    keys = (modules["self_attn.qkv_proj"][1] - queries) // 2 if model_type == "phi3" else modules["self_attn.k_proj"][1]
    return {
        "num_attention_heads": queries // width,
        "num_key_value_heads": keys // width,
        "head_dim": width,
        "intermediate_size": modules["mlp.down_proj"][0],
    }


def build(config: Any, dtype: torch.dtype) -> Any:
    """The architecture with weights allocated in `dtype` and not yet filled."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    model.tie_weights()
    return model


def fill(model: Any, seed: int) -> None:
    """Norms become the identity, biases zero, all else normal with a small deviation; drawn where the model lies."""
    generator = torch.Generator(model.device).manual_seed(seed)
    has_offset = "gemma" in model.config.model_type
    for name, parameter in model.named_parameters():
        weights: Tensor = parameter.data
        if weights.dim() > 1:
            weights.normal_(0.0, STANDARD_DEVIATION, generator=generator)
        else:
            weights.fill_(0.0 if has_offset or name.endswith("bias") else 1.0)
