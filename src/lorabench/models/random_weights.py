"""Builds a model at its real size with seeded random weights, so that speed and memory can be measured without a hub.

The architecture comes from the model's own config.json where it is here, else from what the catalogue states. Weights
are allocated once, in the wanted type, and filled once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lorabench.core.errors import ModelError
from lorabench.models.base import DTYPES, FrozenBase, Precision, freeze
from lorabench.models.entry import ModelEntry

if TYPE_CHECKING:
    from lorabench.models.planning import ModelPlan

HEAD_WIDTHS = {"gpt2": 64, "gpt-neox": 64, "llama": 64, "gemma": 256}
"""Width of an attention head in the published models of each family."""
STANDARD_DEVIATION = 0.02


def load_random(plan: ModelPlan, *, precision: Precision, device: str, seed: int = 0) -> FrozenBase:
    """The planned model with random weights. Raises ModelError where its architecture is not known."""
    from transformers import AutoConfig

    if plan.folder is not None:
        config = AutoConfig.from_pretrained(str(plan.folder), local_files_only=True, trust_remote_code=False)
    elif isinstance(plan.source, ModelEntry):
        config = config_of_entry(plan.source)
    else:
        raise ModelError(f"model {plan.name}: it is not here, and its entry states no sizes")
    model = build(config, DTYPES[precision])
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if num_parameters != plan.shape.num_parameters:
        raise ModelError(
            f"model {plan.name}: {plan.shape.num_parameters} parameters are expected and its architecture has "
            f"{num_parameters}"
        )
    _fill(model, seed)
    return freeze(model.to(device), torch.device(device), precision)


def config_of_entry(entry: ModelEntry) -> Any:
    """Transformers' configuration of a catalogue entry. Raises ModelError for a family that is not known here."""
    import transformers

    linears = entry.linear_modules
    width = entry.head_width or HEAD_WIDTHS.get(entry.family, 0)
    sizes: dict[str, Any] = {
        "vocab_size": entry.vocabulary_size,
        "max_position_embeddings": entry.max_context_length,
        "hidden_size": entry.hidden_size,
        "num_hidden_layers": entry.num_layers,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if entry.family == "gpt2":
        sizes |= {"num_attention_heads": entry.hidden_size // width, "n_inner": linears["mlp.c_fc"][1]}
        return transformers.GPT2Config(**sizes)
    if entry.family == "gpt-neox":
        sizes |= {"num_attention_heads": entry.hidden_size // width}
        return transformers.GPTNeoXConfig(**sizes, intermediate_size=linears["mlp.dense_h_to_4h"][1])
    if entry.family not in ("llama", "gemma"):
        raise ModelError(f"model {entry.name}: no random weights can be made for the family {entry.family}")
    sizes |= {
        "num_attention_heads": linears["self_attn.q_proj"][1] // width,
        "num_key_value_heads": linears["self_attn.k_proj"][1] // width,
        "head_dim": width,
        "intermediate_size": linears["mlp.gate_proj"][1],
        "tie_word_embeddings": True,
    }
    return transformers.GemmaConfig(**sizes) if entry.family == "gemma" else transformers.LlamaConfig(**sizes)


def build(config: Any, dtype: torch.dtype) -> Any:
    """The architecture with weights allocated in `dtype` and not yet filled."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    model.tie_weights()
    return model


def _fill(model: Any, seed: int) -> None:
    """Norms become the identity, biases zero, all else normal with a small deviation."""
    generator = torch.Generator().manual_seed(seed)
    is_gemma = model.config.model_type == "gemma"
    for name, parameter in model.named_parameters():
        weights: Tensor = parameter.data
        if weights.dim() > 1:
            weights.normal_(0.0, STANDARD_DEVIATION, generator=generator)
        else:
            weights.fill_(0.0 if is_gemma or name.endswith("bias") else 1.0)
