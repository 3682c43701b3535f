"""Learning-rate schedules and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lorabench.experiment.schema import TrainingSettings


def learning_rate_at(step: int, num_steps: int, settings: TrainingSettings) -> float:
    """Learning rate of step 0, 1, …: linear warm-up over `warmup_ratio` of the run, then the schedule towards 0.

    The last step still trains: cosine and linear reach 0 one step after it.
    """
    peak = settings.learning_rate
    num_warmup = round(settings.warmup_ratio * num_steps)
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    if settings.schedule == "constant":
        return peak
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    if settings.schedule == "linear":
        return peak * (1.0 - progress)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_optimizer(parameters: Sequence[torch.nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019), one fused update for all parameters."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def clip_gradients(parameters: Sequence[torch.nn.Parameter], max_norm: float) -> float:
    """Scale the gradients to a total norm of at most `max_norm`; returns the norm before."""
    return float(torch.nn.utils.clip_grad_norm_(parameters, max_norm, error_if_nonfinite=False))
