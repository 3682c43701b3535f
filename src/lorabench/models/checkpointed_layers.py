"""Gradient checkpointing of Transformers' own layers, adapters included, while the model stays in evaluation mode.

Transformers' own switch works in training mode only, which turns on dropout that a frozen base never has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from lorabench.fast.checkpointing import checkpointed
from lorabench.fast.dropout import Draws, drawn_by, dropping
from lorabench.fast.known import inner_model
from lorabench.fast.segments import attention_within


def layers_of(model: Any) -> list[nn.Module]:
    """The layers that Transformers can checkpoint, without those inside others; a model may have none."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, GradientCheckpointingLayer) and not any(name.startswith(f"{one}.") for one in found):
            found[name] = module
    return list(found.values())


@contextmanager
def checkpointed_layers(
    model: Any, dropout_modules: Sequence[nn.Module], bounds: npt.NDArray[np.int32] | None = None
) -> Iterator[None]:
    """Inside, what a layer's backward pass needs is not kept but computed once more, with the same dropout.

    `bounds` are those of documents laid flat (`attention_within`).
    """

    @contextmanager
    def as_before(draws: Draws | None) -> Iterator[None]:
        within = nullcontext() if bounds is None else attention_within(inner_model(model), bounds)
        with dropping(dropout_modules), drawn_by(draws), within:
            yield

    layers = layers_of(model)
    for layer in layers:
        layer.forward = partial(checkpointed, layer.forward, surroundings=as_before)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
