"""The output head and its cross-entropy as one function that never holds more than a chunk of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorabench.fast.differentiable import apply
from lorabench.fast.kernels import Kernels, Product
from lorabench.tokens.packing import IGNORED

HEAD_CHUNK = 256
"""Tokens whose logits are held at once."""
ROW_GAP = 32
"""Unused elements between their rows."""


@dataclass(frozen=True)
class Head:
    """Logits of hidden states. weight: [V, width]."""

    weight: Tensor
    soft_cap: float | None = None
    """Logits become soft_cap * tanh(logit / soft_cap)."""


def head_loss(hidden: Tensor, head: Head, targets: Tensor, kernels: Kernels) -> Tensor:
    """Nats summed over the scored targets, float32 scalar; differentiable in `hidden` [T, width].

    The gradient is computed beside the loss, while a chunk's logits are at hand.
    """
    loss: Tensor = apply(_HeadLoss, hidden, head, targets, kernels)
    return loss


def head_nll(hidden: Tensor, head: Head, targets: Tensor, kernels: Kernels) -> Tensor:
    """Nats of each target, float32 [T]; 0 where nothing is scored."""
    scored = torch.nonzero(targets != IGNORED).squeeze(1)
    losses = torch.zeros(len(targets), device=targets.device)
    picked, wanted = hidden[scored], targets[scored]
    buffer = _logits_buffer(hidden, head.weight)
    chunks = [
        kernels.cross_entropy_(_logits(states, head, buffer, kernels), chunk_targets, gradient=False)
        for states, chunk_targets in zip(picked.split(HEAD_CHUNK), wanted.split(HEAD_CHUNK), strict=True)
    ]
    losses[scored] = torch.cat(chunks)
    return losses


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, targets: Tensor, kernels: Kernels) -> Tensor:
        scored = torch.nonzero(targets != IGNORED).squeeze(1)
        everything = len(scored) == len(targets)
        picked, wanted = (hidden, targets) if everything else (hidden[scored], targets[scored])
        gradients = torch.empty_like(picked)
        buffer = _logits_buffer(hidden, head.weight)
        precise = torch.float32 if hidden.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        total = torch.zeros((), dtype=precise, device=hidden.device)
        chunks = zip(picked.split(HEAD_CHUNK), wanted.split(HEAD_CHUNK), gradients.split(HEAD_CHUNK), strict=True)
        for states, chunk_targets, chunk_gradients in chunks:
            logits = _logits(states, head, buffer, kernels)
            slopes = None if head.soft_cap is None else 1.0 - (logits / head.soft_cap).square()
            total += kernels.cross_entropy_(logits, chunk_targets, gradient=True).sum(dtype=precise)
            if slopes is not None:
                logits.mul_(slopes)
            kernels.multiply([Product(((logits, head.weight),), out=chunk_gradients)])
        if not everything:
            gradients = torch.zeros_like(hidden).index_copy_(0, scored, gradients)
        ctx.save_for_backward(gradients)
        return total.float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (saved,) = ctx.saved_tensors
        return (saved * gradients[0]).to(saved.dtype), None, None, None


def _logits_buffer(hidden: Tensor, weight: Tensor) -> Tensor:
    """Room for a chunk's logits. Rows do not lie a power of two apart: they would share few lines of the caches."""
    return hidden.new_empty(min(HEAD_CHUNK, len(hidden)), len(weight) + ROW_GAP)[:, :-ROW_GAP]


def _logits(states: Tensor, head: Head, buffer: Tensor, kernels: Kernels) -> Tensor:
    (logits,) = kernels.multiply([Product(((states, head.weight.t()),), out=buffer[: len(states)])])
    return logits if head.soft_cap is None else logits.div_(head.soft_cap).tanh_().mul_(head.soft_cap)
