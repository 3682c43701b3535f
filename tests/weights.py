"""Random weights for tiny models."""

from __future__ import annotations

from typing import Any

import torch


def draw_weights(model: Any, deviation: float) -> None:
    """Fill every matrix so that the model's parts are far from linear: as they are initialised they hardly are."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=deviation)
