"""The output head and its cross-entropy as one function that never holds more than a chunk of logits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lorabench.fast.differentiable import apply
from lorabench.fast.kernels import Kernels, Product


@dataclass(frozen=True)
class Head:
    """Logits of hidden states. weight: [V, width]; float32 where it is trained."""

    weight: Tensor
    soft_cap: float | None = None
    """Logits become soft_cap * tanh(logit / soft_cap)."""
    alignment: int = 1
    """Products are over a multiple of so many rows of the weight; those beyond V are zero."""

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return len(self.weight)

    def weight_like(self, hidden: Tensor) -> Tensor:
        """The weight in the type of hidden states, without a gradient: [V', width] with V' >= V."""
        return (self._filled() if self.weight.requires_grad else self._frozen).to(hidden.dtype)

    @cached_property
    def _frozen(self) -> Tensor:
        return self._filled()

    def _filled(self) -> Tensor:
        missing = -len(self.weight) % self.alignment
        return functional.pad(self.weight.detach(), (0, 0, 0, missing)) if missing else self.weight.detach()


@dataclass(frozen=True)
class Targets:
    """Which tokens the head is to predict: int64 [n] ids and, unless all T tokens have one, their places."""

    ids: Tensor
    places: Tensor | None
    is_filled: bool = False
    """Whether some are there only to make up a number of them: their places are T."""

    def of(self, hidden: Tensor) -> Tensor:
        """Hidden states [T, width] -> those that have a target [n, width]."""
        if self.places is None:
            return hidden
        return hidden.index_select(0, self.places.clamp(max=len(hidden) - 1) if self.is_filled else self.places)

    def spread(self, values: Tensor, num_tokens: int) -> Tensor:
        """Values [n, ...] at their places among zeros [T, ...]."""
        if self.places is None:
            return values
        room = values.new_zeros(num_tokens + self.is_filled, *values.shape[1:])
        return room.index_copy_(0, self.places, values)[:num_tokens]


def head_loss(hidden: Tensor, head: Head, targets: Targets, kernels: Kernels) -> Tensor:
    """Nats summed over the targets, float32 scalar; differentiable in `hidden` [T, width] and in a trained head.

    The gradient is computed beside the loss, while a chunk's logits are at hand.
    """
    num_scored = len(hidden) if targets.is_filled else len(targets.ids)
    loss: Tensor = apply(_HeadLoss, hidden, head.weight, head, targets, kernels, (0, num_scored), None)
    return loss


def head_losses(
    hidden: Tensor, head: Head, targets: Targets, kernels: Kernels, scored: Sequence[int], owners: Tensor
) -> Tensor:
    """Of each of N runs, float32 [N]: targets [scored[i], scored[i + 1]) are run i's, tokens those of `owners` [T].

    The head is not trained.
    """
    losses: Tensor = apply(_HeadLoss, hidden, head.weight.detach(), head, targets, kernels, tuple(scored), owners)
    return losses


def head_nll(hidden: Tensor, head: Head, targets: Targets, kernels: Kernels) -> Tensor:
    """Nats of each target, float32 [T]; 0 where there is none."""
    picked, weight = targets.of(hidden), head.weight_like(hidden)
    room = kernels.room_for_logits(picked, len(weight))
    chunks = [
        kernels.cross_entropy_(
            _logits(states, weight, head.soft_cap, room, kernels)[:, : head.vocabulary_size], ids, gradient=False
        )
        for states, ids in zip(picked.split(len(room)), targets.ids.split(len(room)), strict=True)
    ]
    return targets.spread(torch.cat(chunks), len(hidden))


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        trained: Tensor,
        head: Head,
        targets: Targets,
        kernels: Kernels,
        scored: tuple[int, ...],
        owners: Tensor | None,
    ) -> Tensor:
        picked, weight = targets.of(hidden), head.weight_like(hidden)
        gradients, nats = torch.empty_like(picked), []
        d_weight = torch.zeros_like(trained) if trained.requires_grad else None
        room = kernels.room_for_logits(picked, len(weight))
        parts = (part.split(len(room)) for part in (picked, targets.ids, gradients))
        for states, ids, chunk_gradients in zip(*parts, strict=True):
            logits = _logits(states, weight, head.soft_cap, room, kernels)
            slopes = None if head.soft_cap is None else 1.0 - (logits / head.soft_cap).square()
            nats.append(kernels.cross_entropy_(logits[:, : head.vocabulary_size], ids, gradient=True))
            if slopes is not None:
                logits.mul_(slopes)
            kernels.multiply([Product(((logits, weight),), out=chunk_gradients)])
            if d_weight is not None:
                d_weight += kernels.multiply([Product(((logits.t(), states),))])[0][: head.vocabulary_size]
        ctx.is_shared = owners is not None
        others = [tensor for tensor in (d_weight, owners) if tensor is not None]
        ctx.save_for_backward(targets.spread(gradients, len(hidden)), *others)
        whole = nats[0] if len(nats) == 1 else torch.cat(nats)
        whole = targets.spread(whole, len(hidden)) if targets.is_filled else whole
        sums = [_sum(whole[start:end], len(room)) for start, end in itertools.pairwise(scored)]
        return sums[0] if owners is None else torch.stack(sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved, *others = ctx.saved_tensors
        d_weight: Tensor | None = None
        slope = gradients[0]
        if ctx.is_shared:
            slope = slope.index_select(0, others[0])[:, None]
        elif others:
            d_weight = others[0] * slope
        return (saved * slope).to(saved.dtype), d_weight, None, None, None, None, None


def _sum(nats: Tensor, at_once: int) -> Tensor:
    """In float64, float32 scalar."""
    precise = torch.float32 if nats.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    total: Tensor = reduce(torch.add, [part.sum(dtype=precise) for part in nats.split(at_once)])
    return total.float()


def _logits(states: Tensor, weight: Tensor, soft_cap: float | None, room: Tensor, kernels: Kernels) -> Tensor:
    (logits,) = kernels.multiply([Product(((states, weight.t()),), out=room[: len(states)])])
    return logits if soft_cap is None else logits.div_(soft_cap).tanh_().mul_(soft_cap)
