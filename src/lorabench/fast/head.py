"""The output head and its cross-entropy as one function that never holds more than a chunk of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorabench.fast.differentiable import apply
from lorabench.fast.kernels import Kernels, Product


@dataclass(frozen=True)
class Head:
    """Logits of hidden states. weight: [V, width]; float32 where it is trained."""

    weight: Tensor
    soft_cap: float | None = None
    """Logits become soft_cap * tanh(logit / soft_cap)."""

    def weight_like(self, hidden: Tensor) -> Tensor:
        """The weight in the type of hidden states, without a gradient."""
        return self.weight.detach().to(hidden.dtype)


@dataclass(frozen=True)
class Targets:
    """Which tokens the head is to predict: int64 [n] ids and, unless all T tokens have one, their places."""

    ids: Tensor
    places: Tensor | None

    def of(self, hidden: Tensor) -> Tensor:
        """Hidden states [T, width] -> those that have a target [n, width]."""
        return hidden if self.places is None else hidden.index_select(0, self.places)

    def spread(self, values: Tensor, num_tokens: int) -> Tensor:
        """Values [n, ...] at their places among zeros [T, ...]."""
        if self.places is None:
            return values
        return values.new_zeros(num_tokens, *values.shape[1:]).index_copy_(0, self.places, values)


def head_loss(hidden: Tensor, head: Head, targets: Targets, kernels: Kernels) -> Tensor:
    """Nats summed over the targets, float32 scalar; differentiable in `hidden` [T, width] and in a trained head.

    The gradient is computed beside the loss, while a chunk's logits are at hand.
    """
    loss: Tensor = apply(_HeadLoss, hidden, head.weight, head, targets, kernels)
    return loss


def head_nll(hidden: Tensor, head: Head, targets: Targets, kernels: Kernels) -> Tensor:
    """Nats of each target, float32 [T]; 0 where there is none."""
    picked, weight = targets.of(hidden), head.weight_like(hidden)
    room = kernels.room_for_logits(picked, len(weight))
    chunks = [
        kernels.cross_entropy_(_logits(states, weight, head.soft_cap, room, kernels), ids, gradient=False)
        for states, ids in zip(picked.split(len(room)), targets.ids.split(len(room)), strict=True)
    ]
    return targets.spread(torch.cat(chunks), len(hidden))


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, trained: Tensor, head: Head, targets: Targets, kernels: Kernels) -> Tensor:
        picked, weight = targets.of(hidden), head.weight_like(hidden)
        gradients = torch.empty_like(picked)
        d_weight = torch.zeros_like(trained) if trained.requires_grad else None
        room = kernels.room_for_logits(picked, len(weight))
        precise = torch.float32 if hidden.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        total = torch.zeros((), dtype=precise, device=hidden.device)
        parts = (part.split(len(room)) for part in (picked, targets.ids, gradients))
        for states, ids, chunk_gradients in zip(*parts, strict=True):
            logits = _logits(states, weight, head.soft_cap, room, kernels)
            slopes = None if head.soft_cap is None else 1.0 - (logits / head.soft_cap).square()
            total += kernels.cross_entropy_(logits, ids, gradient=True).sum(dtype=precise)
            if slopes is not None:
                logits.mul_(slopes)
            kernels.multiply([Product(((logits, weight),), out=chunk_gradients)])
            if d_weight is not None:
                d_weight += kernels.multiply([Product(((logits.t(), states),))])[0]
        ctx.save_for_backward(targets.spread(gradients, len(hidden)), *([] if d_weight is None else [d_weight]))
        return total.float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved, *d_weight = ctx.saved_tensors
        d_hidden = (saved * gradients[0]).to(saved.dtype)
        return d_hidden, d_weight[0] * gradients[0] if d_weight else None, None, None, None


def _logits(states: Tensor, weight: Tensor, soft_cap: float | None, room: Tensor, kernels: Kernels) -> Tensor:
    (logits,) = kernels.multiply([Product(((states, weight.t()),), out=room[: len(states)])])
    return logits if soft_cap is None else logits.div_(soft_cap).tanh_().mul_(soft_cap)
