"""Learning-rate schedules and the optimizer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from lorabench.core.errors import ModelError
from lorabench.experiment.schema import TrainingSettings
from lorabench.experiment.steps import num_decay_steps, num_warmup_steps
from lorabench.methods.adapter import Adapter
from lorabench.training.optimizers import optimizer_of

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase

INITIAL_SCALE = 2.0**16
"""Of the loss in fp16."""


def learning_rate_at(step: int, num_steps: int, settings: TrainingSettings, num_warmup: int | None = None) -> float:
    """Learning rate of step 0, 1, …: linear warm-up over `num_warmup` steps, then the schedule towards 0.

    The warm-up is `warmup_ratio` of the steps where none is given. The last step still trains: cosine, linear and wsd
    reach 0 one step after it.
    """
    peak = settings.learning_rate
    if num_warmup is None:
        num_warmup = num_warmup_steps(num_steps, settings)
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    if settings.schedule == "constant" or settings.optimizer == "schedule-free":
        return peak
    start = max(num_warmup, num_steps - num_decay_steps(num_steps, settings))
    progress = max(0, step - start) / max(1, num_steps - start)
    if settings.schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak * (1.0 - progress)


def make_optimizer(adapter: Adapter, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The settings' optimizer over the adapter's groups.

    Each of its groups keeps its `rate`, by which `set_learning_rate` multiplies. Raises ModelError unless the adapter's
    groups hold every trainable parameter once.
    """
    groups = adapter.optimizer_groups()
    trained = Counter(parameter for _, parameter in adapter.named_parameters())
    if trained != Counter(parameter for group in groups for parameter in group.parameters):
        raise ModelError(f"{type(adapter).__name__}: its optimizer groups do not hold every trainable parameter once")
    described: list[dict[str, Any]] = [
        {
            "params": list(group.parameters),
            "rate": group.rate,
            "weight_decay": settings.weight_decay if group.weight_decay is None else group.weight_decay,
        }
        for group in groups
    ]
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in adapter.named_parameters()}
    return optimizer_of(described, names, settings)


def make_scaler(base: FrozenBase) -> torch.amp.GradScaler:
    """Scales losses in fp16, whose gradients are too small a type; in other precisions it changes nothing.

    The scale is halved after a step whose gradients overflow, which the optimizer skips, and doubled after many that do
    not.
    """
    return torch.amp.GradScaler(base.device.type, init_scale=INITIAL_SCALE, enabled=base.precision == "fp16")


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group the run's learning rate, multiplied by its own `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]


def clip_gradients(parameters: Sequence[torch.nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scale the gradients to a total norm of at most `max_norm`; returns the norm before, where the gradients lie."""
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm, error_if_nonfinite=False)
