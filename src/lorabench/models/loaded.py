"""The linear layers of a loaded model, by the types of its modules."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from lorabench.models.linears import can_adapt, find_experts


class LoadedLinears:
    """What `HasLinears` asks for, of a model in memory without an adapter."""

    def __init__(self, model: Any) -> None:
        from transformers.pytorch_utils import Conv1D

        head = model.get_output_embeddings()
        self.transposed = False
        self.linears: dict[str, tuple[int, int]] = {}
        for path, module in model.named_modules():
            if module is head or not can_adapt(path, str(model.config.model_type)):
                continue
            if isinstance(module, nn.Linear):
                self.linears[path] = (module.in_features, module.out_features)
            elif isinstance(module, Conv1D):
                self.transposed = True
                self.linears[path] = (module.weight.shape[0], module.weight.shape[1])
        weights = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        self.parameters = {name: math.prod(shape) for name, shape in weights.items()}
        self.num_layers: int = model.config.num_hidden_layers
        self.hidden_size: int = model.config.hidden_size
        self.config: dict[str, Any] = model.config.to_dict()
        self.experts = find_experts(weights) - self.linears.keys()
        self.num_parameters: int = sum(parameter.numel() for parameter in model.parameters())


def vocabulary_size(model: Any) -> int:
    """Tokens with an embedding and a logit, by the loaded layers; where these are not found, by the configuration."""
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    sizes = [getattr(table, "num_embeddings", getattr(table, "out_features", None)) for table in tables]
    found = [size for size in sizes if isinstance(size, int)]
    return min(found) if found else int(model.config.get_text_config().vocab_size)


def longest_document(model: Any) -> int:
    """Tokens that the model has positions for beside an adapter's virtual tokens; very many where it has no limit."""
    config = model.config.get_text_config()
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
    virtual: int = model.active_peft_config.num_virtual_tokens if has_virtual_tokens(model) else 0
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=1 << 20) - virtual


def has_virtual_tokens(model: Any) -> bool:
    """Whether PEFT puts virtual tokens, or keys and values of such, before every text."""
    return hasattr(model, "peft_type") and bool(model.active_peft_config.is_prompt_learning)
