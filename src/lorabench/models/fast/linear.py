"""Frozen linear layers with LoRA adapters, computed together where they read the same input.

With u = x A^T and du = scaling * dy B: dB = scaling * dy^T u, dA = du^T x, dx = dy W^T + du A (Hu et al. 2021). Adapter
products accumulate into the base's, and the first factors of layers with one input are one product over it. Only dA
needs the input again, so whoever can make it again need not keep it: the backward pass comes in two parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorabench.models.fast.differentiable import apply


@dataclass(frozen=True)
class Projection:
    """y = x @ weight + bias + scaling * (x @ a.T) @ b.T; weight [in, out] is a view, a [r, in], b [out, r] float32."""

    weight: Tensor
    bias: Tensor | None
    a: Tensor | None = None
    b: Tensor | None = None
    scaling: float = 1.0
    dropout: float = 0.0


@dataclass(frozen=True)
class Projections:
    """Layers that read the same input."""

    layers: tuple[Projection, ...]

    @property
    def factors(self) -> list[Tensor]:
        """The adapters' parameters, a and b of each adapted layer."""
        return [factor for layer in self.adapted for factor in (layer.a, layer.b) if factor is not None]

    @property
    def adapted(self) -> list[Projection]:
        """The layers that carry an adapter."""
        return [layer for layer in self.layers if layer.a is not None]


@dataclass(frozen=True)
class Lowered:
    """What the backward pass needs of the forward one, the input apart. R = the ranks' sum."""

    product: Tensor
    """u of all adapted layers, [T, R]."""
    firsts: Tensor
    """Their first factors in the activations' type, [R, in]."""
    seconds: tuple[Tensor, ...]
    """Their second factors in the activations' type, [out, r] each."""
    kept: tuple[Tensor, ...]
    """Where dropout keeps the input, bool [T, in] per adapted layer; empty without dropout."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, to be saved by autograd."""
        return (self.product, self.firsts, *self.seconds, *self.kept)

    @classmethod
    def of(cls, tensors: Sequence[Tensor], num_adapted: int) -> Lowered:
        """The inverse of `tensors`."""
        return cls(tensors[0], tensors[1], tuple(tensors[2 : 2 + num_adapted]), tuple(tensors[2 + num_adapted :]))


def project(inputs: Tensor, projections: Projections, *, training: bool) -> tuple[list[Tensor], Lowered | None]:
    """[T, in] -> one [T, out] per layer, and what the backward pass needs where a layer is adapted."""
    adapted = projections.adapted
    lowered = _lower(inputs, adapted, training) if adapted else None
    pieces = iter(() if lowered is None else zip(_split(lowered.product, adapted), lowered.seconds, strict=True))
    outputs = []
    for layer in projections.layers:
        weight, bias = layer.weight, layer.bias
        out = torch.mm(inputs, weight) if bias is None else torch.addmm(bias, inputs, weight)
        if layer.a is not None:
            piece, b = next(pieces)
            out.addmm_(piece, b.t(), alpha=layer.scaling)
        outputs.append(out)
    return outputs, lowered


def input_gradient(
    gradients: Sequence[Tensor], projections: Projections, lowered: Lowered | None, *, wanted: bool
) -> tuple[Tensor | None, Tensor | None, list[Tensor]]:
    """From each layer's dy: dx (None unless wanted), du [T, R] (None without adapters), and each adapter's dB."""
    d_inputs: Tensor | None = None
    if wanted:
        first, *others = zip(projections.layers, gradients, strict=True)
        d_inputs = torch.mm(first[1], first[0].weight.t())
        for layer, gradient in others:
            d_inputs.addmm_(gradient, layer.weight.t())
    if lowered is None:
        return d_inputs, None, []
    adapted = [(layer, dy) for layer, dy in zip(projections.layers, gradients, strict=True) if layer.a is not None]
    layers = [layer for layer, _ in adapted]
    d_lowered = torch.empty_like(lowered.product)
    d_seconds = []
    parts = zip(_split(lowered.product, layers), _split(d_lowered, layers), lowered.seconds, strict=True)
    for (layer, gradient), (piece, d_piece, b) in zip(adapted, parts, strict=True):
        torch.mm(gradient, b * layer.scaling, out=d_piece)
        d_seconds.append(torch.mm(gradient.t(), piece).float().mul_(layer.scaling))
    if d_inputs is None:
        return None, d_lowered, d_seconds
    if lowered.kept:
        splits = zip(layers, _split(d_lowered, layers), _split(lowered.firsts, layers, 0), lowered.kept, strict=True)
        for layer, d_piece, a, kept in splits:
            d_inputs.addcmul_(torch.mm(d_piece, a), kept, value=1.0 / (1.0 - layer.dropout))
    else:
        d_inputs.addmm_(d_lowered, lowered.firsts)
    return d_inputs, d_lowered, d_seconds


def first_gradients(inputs: Tensor, d_lowered: Tensor, projections: Projections, lowered: Lowered) -> list[Tensor]:
    """Each adapter's dA, float32 [r, in]."""
    adapted = projections.adapted
    if not lowered.kept:
        together = torch.mm(d_lowered.t(), inputs).float()
        return list(_split(together, adapted, 0))
    return [
        torch.mm(d_piece.t(), inputs * kept).float().div_(1.0 - layer.dropout)
        for layer, d_piece, kept in zip(adapted, _split(d_lowered, adapted), lowered.kept, strict=True)
    ]


def linear(inputs: Tensor, projections: Projections, *, training: bool) -> tuple[Tensor, ...]:
    """[T, in] -> one [T, out] per layer, differentiable in the input and in the adapters."""
    outputs: tuple[Tensor, ...] = apply(_Linear, inputs, projections, training, *projections.factors)
    return outputs


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, projections: Projections, training: bool, *factors: Tensor
    ) -> tuple[Tensor, ...]:
        outputs, lowered = project(inputs, projections, training=training)
        ctx.projections = projections
        if lowered is not None:
            ctx.save_for_backward(inputs, *lowered.tensors)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, lowered = saved_lowered(ctx, 1)
        d_inputs, d_lowered, d_seconds = input_gradient(
            gradients, ctx.projections, lowered, wanted=ctx.needs_input_grad[0]
        )
        if lowered is None or d_lowered is None:
            return d_inputs, None, None
        d_firsts = first_gradients(inputs[0], d_lowered, ctx.projections, lowered)
        return d_inputs, None, None, *interleave(d_firsts, d_seconds)


def saved_lowered(ctx: Any, num_others: int) -> tuple[tuple[Tensor, ...], Lowered | None]:
    """What a function saved: its own tensors first, then those of the adapters, if there are any."""
    saved = ctx.saved_tensors
    others, rest = saved[:num_others], saved[num_others:]
    return others, Lowered.of(rest, len(ctx.projections.adapted)) if rest else None


def interleave(d_firsts: Sequence[Tensor], d_seconds: Sequence[Tensor]) -> list[Tensor]:
    """Gradients in the order of `Projections.factors`."""
    return [gradient for pair in zip(d_firsts, d_seconds, strict=True) for gradient in pair]


def _lower(inputs: Tensor, adapted: Sequence[Projection], training: bool) -> Lowered:
    firsts = [layer.a.to(inputs.dtype) for layer in adapted if layer.a is not None]
    seconds = tuple(layer.b.to(inputs.dtype) for layer in adapted if layer.b is not None)
    stacked = torch.cat(firsts)
    if not (training and any(layer.dropout for layer in adapted)):
        return Lowered(torch.mm(inputs, stacked.t()), stacked, seconds, ())
    kept = tuple(_draw_kept(inputs, layer.dropout) for layer in adapted)
    products = [
        torch.mm(inputs * kept_here, a.t()).div_(1.0 - layer.dropout)
        for layer, kept_here, a in zip(adapted, kept, firsts, strict=True)
    ]
    return Lowered(torch.cat(products, dim=1), stacked, seconds, kept)


def _draw_kept(inputs: Tensor, probability: float) -> Tensor:
    """False with the given probability; the draws are those of torch's own dropout."""
    return torch.empty_like(inputs).bernoulli_(1.0 - probability).bool()


def _split(tensor: Tensor, adapted: Sequence[Projection], dim: int = 1) -> tuple[Tensor, ...]:
    pieces: tuple[Tensor, ...] = tensor.split([len(layer.a) for layer in adapted if layer.a is not None], dim=dim)
    return pieces
