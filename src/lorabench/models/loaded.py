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
