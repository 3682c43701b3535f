"""Frozen linear layers with LoRA adapters, computed together where they read the same input.

With u = x A^T and du = scaling * dy B: dB = scaling * dy^T u, dA = du^T x, dx = dy W^T + du A (Hu et al. 2021). An
adapter's product is a term of the base's, and the first factors of layers with one input are one product over it. Only
dA needs the input again, so whoever can make it again need not keep it: the backward pass comes in two parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorabench.fast.differentiable import apply
from lorabench.fast.dropout import draw_kept
from lorabench.fast.held import HeldWeight
from lorabench.fast.kernels import Kernels, Product


@dataclass(frozen=True)
class Magnitude:
    """DoRA's, of one layer. weight, squares: float32 [out], trained and of the base's rows; bias: that of the layer."""

    weight: Tensor
    squares: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Scaled:
    """VeRA's second factor: a frozen one [out, r] that layers share, its columns and rows scaled by trained vectors."""

    factor: Tensor
    columns: Tensor
    rows: Tensor

    def whole(self) -> Tensor:
        """[out, r], differentiable in the vectors."""
        return self.rows[:, None] * self.factor * self.columns


@dataclass(frozen=True)
class Projection:
    """y = x @ weight + bias + scaling * (x @ a.T) @ b.T; weight [in, out] is a view, a [r, in], b [out, r] float32."""

    held: Tensor | HeldWeight
    """The weight, or what it is made of."""
    bias: Tensor | None
    a: Tensor | None = None
    second: Tensor | Scaled | None = None
    """`b`, or what it is made of."""
    scaling: float = 1.0
    dropout: float = 0.0
    magnitude: Magnitude | None = None
    """Of DoRA; y is then without the bias, which follows."""

    @property
    def weight(self) -> Tensor:
        """[in, out]; of a quantised layer made anew each time."""
        return self.held if isinstance(self.held, Tensor) else self.held.dense()

    @property
    def b(self) -> Tensor | None:
        """[out, r]; of VeRA made anew each time."""
        return self.second.whole() if isinstance(self.second, Scaled) else self.second


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

    @property
    def trains_firsts(self) -> bool:
        """Whether an adapter's first factor is trained, whose gradient alone needs the input again."""
        return any(layer.a.requires_grad for layer in self.layers if layer.a is not None)

    def project(self, inputs: Tensor, kernels: Kernels, *, training: bool) -> tuple[list[Tensor], Any]:
        """[T, in] -> one [T, out] per layer, and what the backward pass needs where a layer is adapted."""
        return project(inputs, self, kernels, training=training)

    def restore(self, tensors: Sequence[Tensor]) -> Any:
        """What `project` gave for the backward pass, from its `tensors`."""
        return Lowered.of(tensors, len(self.adapted))

    def input_gradient(
        self, gradients: Sequence[Tensor], lowered: Any, kernels: Kernels, *, wanted: bool
    ) -> tuple[Tensor | None, Any, list[Tensor]]:
        """From each layer's dy: dx (None unless wanted), du (None without adapters), and each adapter's dB."""
        return input_gradient(gradients, self, lowered, kernels, wanted=wanted)

    def first_gradients(
        self, inputs: Tensor | None, d_lowered: Any, lowered: Any, kernels: Kernels
    ) -> Sequence[Tensor | None]:
        """Each adapter's dA, float32 [r, in]; None where no first factor is trained, for which no input is needed."""
        return first_gradients(inputs, d_lowered, self, lowered, kernels)


@dataclass(frozen=True)
class Lowered:
    """What the backward pass needs of the forward one, the input apart. R = the ranks' sum."""

    product: Tensor
    """u of all adapted layers, [T, R]."""
    firsts: Tensor
    """Their first factors in the activations' type, [R, in]."""
    seconds: tuple[Tensor, ...]
    """Their second factors times the scaling, in the activations' type, [out, r] each."""
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


def project(
    inputs: Tensor, projections: Projections, kernels: Kernels, *, training: bool
) -> tuple[list[Tensor], Lowered | None]:
    """[T, in] -> one [T, out] per layer, and what the backward pass needs where a layer is adapted."""
    adapted = projections.adapted
    lowered = lower(inputs, adapted, kernels, training) if adapted else None
    pieces = iter(() if lowered is None else zip(split(lowered.product, adapted), lowered.seconds, strict=True))
    products = []
    for layer in projections.layers:
        terms = [(inputs, layer.weight)]
        if layer.a is not None:
            piece, second = next(pieces)
            terms.append((piece, second.t()))
        products.append(Product(tuple(terms), layer.bias))
    return kernels.multiply(products), lowered


def input_gradient(
    gradients: Sequence[Tensor], projections: Projections, lowered: Lowered | None, kernels: Kernels, *, wanted: bool
) -> tuple[Tensor | None, Tensor | None, list[Tensor]]:
    """From each layer's dy: dx (None unless wanted), du [T, R] (None without adapters), and each adapter's dB."""
    terms = [(dy, layer.weight.t()) for layer, dy in zip(projections.layers, gradients, strict=True)]
    if lowered is None:
        return kernels.multiply([Product(tuple(terms))])[0] if wanted else None, None, []
    adapted = projections.adapted
    d_outputs = [dy for layer, dy in zip(projections.layers, gradients, strict=True) if layer.a is not None]
    d_lowered = torch.empty_like(lowered.product)
    d_pieces = split(d_lowered, adapted)
    kernels.multiply(
        [Product(((dy, b),), out=du) for dy, b, du in zip(d_outputs, lowered.seconds, d_pieces, strict=True)]
    )
    d_seconds = [torch.empty_like(b, dtype=torch.float32) for b in lowered.seconds]
    pieces = split(lowered.product, adapted)
    products = [Product(((dy.t(), u),), out=d_b) for dy, u, d_b in zip(d_outputs, pieces, d_seconds, strict=True)]
    if wanted:
        if not lowered.kept:
            terms.append((d_lowered, lowered.firsts))
        products.append(Product(tuple(terms)))
    results = kernels.multiply(products)
    for layer, d_b in zip(adapted, d_seconds, strict=True):
        d_b.mul_(layer.scaling)
    if not wanted:
        return None, d_lowered, d_seconds
    d_inputs = results[-1]
    if lowered.kept:
        splits = zip(adapted, d_pieces, split(lowered.firsts, adapted, 0), lowered.kept, strict=True)
        for layer, d_piece, a, kept in splits:
            d_inputs.addcmul_(torch.mm(d_piece, a), kept, value=1.0 / (1.0 - layer.dropout))
    return d_inputs, d_lowered, d_seconds


def first_gradients(
    inputs: Tensor | None, d_lowered: Tensor, projections: Projections, lowered: Lowered, kernels: Kernels
) -> Sequence[Tensor | None]:
    """Each adapter's dA, float32 [r, in]; None where no first factor is trained, for which no input is needed."""
    if inputs is None or not projections.trains_firsts:
        return [None] * len(projections.adapted)
    adapted = projections.adapted
    d_firsts = torch.empty_like(lowered.firsts, dtype=torch.float32)
    if not lowered.kept:
        kernels.multiply([Product(((d_lowered.t(), inputs),), out=d_firsts)])
        return list(split(d_firsts, adapted, 0))
    splits = zip(adapted, split(d_lowered, adapted), split(d_firsts, adapted, 0), lowered.kept, strict=True)
    for layer, d_piece, d_a, kept in splits:
        kernels.multiply([Product(((d_piece.t(), inputs * kept),), out=d_a)])
        d_a.div_(1.0 - layer.dropout)
    return list(split(d_firsts, adapted, 0))


def linear(inputs: Tensor, projections: Projections, kernels: Kernels, *, training: bool) -> tuple[Tensor, ...]:
    """[T, in] -> one [T, out] per layer, differentiable in the input and in the adapters."""
    outputs: tuple[Tensor, ...] = apply(_Linear, inputs, projections, kernels, training, *projections.factors)
    return outputs


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, projections: Projections, kernels: Kernels, training: bool, *factors: Tensor
    ) -> tuple[Tensor, ...]:
        outputs, lowered = projections.project(inputs, kernels, training=training)
        ctx.projections, ctx.kernels = projections, kernels
        if lowered is not None:
            ctx.save_for_backward(*([inputs] if projections.trains_firsts else []), *lowered.tensors)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, lowered = saved_lowered(ctx, 1 if ctx.projections.trains_firsts else 0)
        d_inputs, d_lowered, d_seconds = ctx.projections.input_gradient(
            gradients, lowered, ctx.kernels, wanted=ctx.needs_input_grad[0]
        )
        if lowered is None or d_lowered is None:
            return d_inputs, None, None, None
        d_firsts = ctx.projections.first_gradients(inputs[0] if inputs else None, d_lowered, lowered, ctx.kernels)
        return d_inputs, None, None, None, *interleave(d_firsts, d_seconds)


def saved_lowered(ctx: Any, num_others: int) -> tuple[tuple[Tensor, ...], Any]:
    """What a function saved: its own tensors first, then those of the adapters, if there are any."""
    saved = ctx.saved_tensors
    others, rest = saved[:num_others], saved[num_others:]
    return others, ctx.projections.restore(rest) if rest else None


def interleave(d_firsts: Sequence[Tensor | None], d_seconds: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients in the order of `Projections.factors`."""
    return [gradient for pair in zip(d_firsts, d_seconds, strict=True) for gradient in pair]


def lower(inputs: Tensor, adapted: Sequence[Projection], kernels: Kernels, training: bool) -> Lowered:
    """The adapters' first products of inputs [T, in]."""
    firsts = _together([layer.a for layer in adapted if layer.a is not None]).to(inputs.dtype)
    seconds = tuple(_scaled(layer.b, layer.scaling, inputs.dtype) for layer in adapted if layer.b is not None)
    if not (training and any(layer.dropout for layer in adapted)):
        return Lowered(kernels.multiply([Product(((inputs, firsts.t()),))])[0], firsts, seconds, ())
    kept = tuple(draw_kept(inputs, layer.dropout) for layer in adapted)
    product = inputs.new_empty(len(inputs), len(firsts))
    splits = zip(adapted, kept, split(firsts, adapted, 0), split(product, adapted), strict=True)
    for layer, kept_here, a, u in splits:
        kernels.multiply([Product(((inputs * kept_here, a.t()),), out=u)])
        u.div_(1.0 - layer.dropout)
    return Lowered(product, firsts, seconds, kept)


def _together(factors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(factors)) if len(factors) > 1 else factors[0].detach()


def _scaled(factor: Tensor, scaling: float, dtype: torch.dtype) -> Tensor:
    """In one pass: multiplied in float32, rounded once."""
    return torch.mul(factor.detach(), scaling, out=torch.empty_like(factor, dtype=dtype))


def split(tensor: Tensor, adapted: Sequence[Projection], dim: int = 1) -> tuple[Tensor, ...]:
    """What lies side by side of all adapted layers, layer by layer."""
    pieces: tuple[Tensor, ...] = tensor.split([len(layer.a) for layer in adapted if layer.a is not None], dim=dim)
    return pieces
