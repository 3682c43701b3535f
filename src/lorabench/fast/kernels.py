"""The one seam between machines: the passes of a step, in torch or compiled for this processor.

`PlainKernels` states each pass in torch operations, for any device. `lorabench.fast.cpu.native` has the same
passes in C++, where a tensor is read and written once instead of once per operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from lorabench.fast.attention import Heads, Segments, attend

ActivationKind = Literal["silu", "gelu_tanh", "gelu_erf"]
HEAD_CHUNK = 256
"""Tokens whose logits are held at once on a processor."""
ROW_GAP = 32
"""Unused elements between their rows: rows a power of two apart would share few lines of the caches."""


@dataclass(frozen=True)
class Norm:
    """RMSNorm, or LayerNorm where `centred`. weight, bias: float32 [width]."""

    weight: Tensor
    bias: Tensor | None
    epsilon: float
    centred: bool
    trained: Callable[[], tuple[Tensor, Tensor | None]] | None = None
    """Weight and bias as they are now where they are trained; `weight` and `bias` are then as they were at first."""


@dataclass(frozen=True)
class Product:
    """The sum of left [m, k] @ right [k, n] over the terms, plus bias [n]; k may differ from term to term."""

    terms: tuple[tuple[Tensor, Tensor], ...]
    bias: Tensor | None = None
    out: Tensor | None = None
    """Where it is written, [m, n] with any strides, in the factors' type or float32; a new tensor where None."""


class Kernels(Protocol):
    """Passes over activations [T, ...] of float32 or bfloat16; sums and the residual stream are float32."""

    name: str
    reason: str
    """Why they are slower than they could be on this machine; empty where they are not."""

    saves_launches: bool
    """Whether the number of products counts more than what is computed in vain: on GPUs."""

    head_alignment: int
    """The head's products are over a multiple of so many tokens of the vocabulary."""

    @property
    def compile_seconds(self) -> float:
        """What compiling them took in this process so far."""

    def multiply(self, products: Sequence[Product]) -> list[Tensor]:
        """Products that do not need one another. Factors are views whose rows or columns are contiguous."""

    def add_norm(
        self, residual: Tensor, delta: Tensor | None, norm: Norm, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Residual + delta (float32), its norm in `dtype`, and per row the mean (LayerNorm) and 1 / deviation."""

    def add_norm_backward(
        self, d_total: Tensor | None, d_normed: Tensor, total: Tensor, mean: Tensor | None, scale: Tensor, norm: Norm
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The residual's gradient in float32, the same in the activations' type, and the norm itself once more."""

    def activation(self, kind: ActivationKind, gate: Tensor, up: Tensor | None) -> Tensor:
        """f(gate), times `up` where there is one."""

    def activation_backward_(
        self, kind: ActivationKind, gate: Tensor, up: Tensor | None, d_out: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Gradients of gate and up, and beside them the activation itself once more; all three are used up."""

    def attend(self, projections: tuple[Tensor, ...], heads: Heads, segments: Segments) -> Tensor:
        """Projections [T, ...] -> causal attention within segments [T, query heads * width], differentiable once.

        The backward pass may use the projections up.
        """

    def cross_entropy_(self, logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
        """Nats float32 [n] of targets [n]; with `gradient`, logits [n, V] become softmax minus one-hot."""

    def room_for_logits(self, hidden: Tensor, vocabulary_size: int) -> Tensor:
        """Where logits of a chunk of hidden states [T, width] are held: [at most T, V], rows any distance apart."""


class PlainKernels:
    """Every pass in torch operations."""

    name = "torch"
    compile_seconds = 0.0
    saves_launches = False
    head_alignment = 1

    def __init__(self, reason: str = "") -> None:
        self.reason = reason

    def multiply(self, products: Sequence[Product]) -> list[Tensor]:
        return [self.multiply_one(product) for product in products]

    def add_norm(
        self, residual: Tensor, delta: Tensor | None, norm: Norm, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        total = residual if delta is None else residual + delta
        mean = total.mean(-1, keepdim=True) if norm.centred else None
        centred = total if mean is None else total - mean
        scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + norm.epsilon)
        normed = centred * scale * norm.weight
        if norm.bias is not None:
            normed = normed + norm.bias
        return total, normed.to(dtype), mean, scale

    def add_norm_backward(
        self, d_total: Tensor | None, d_normed: Tensor, total: Tensor, mean: Tensor | None, scale: Tensor, norm: Norm
    ) -> tuple[Tensor, Tensor, Tensor]:
        unit = (total if mean is None else total - mean) * scale
        normed = unit * norm.weight if norm.bias is None else unit * norm.weight + norm.bias
        slope = d_normed.float() * norm.weight
        d_x = slope - unit * (slope * unit).mean(-1, keepdim=True)
        if mean is not None:
            d_x = d_x - slope.mean(-1, keepdim=True)
        d_x = d_x * scale
        if d_total is not None:
            d_x = d_x + d_total
        return d_x, d_x.to(d_normed.dtype), normed.to(d_normed.dtype)

    def activation(self, kind: ActivationKind, gate: Tensor, up: Tensor | None) -> Tensor:
        value = _activate(kind, gate)
        return value if up is None else value * up

    def activation_backward_(
        self, kind: ActivationKind, gate: Tensor, up: Tensor | None, d_out: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        value = _activate(kind, gate)
        d_value = d_out if up is None else d_out * up
        if kind == "silu":
            d_gate = torch.ops.aten.silu_backward(d_value, gate)
        else:
            d_gate = torch.ops.aten.gelu_backward(d_value, gate, approximate=_GELU[kind])
        return (d_gate, None, value) if up is None else (d_gate, d_out * value, value * up)

    def attend(self, projections: tuple[Tensor, ...], heads: Heads, segments: Segments) -> Tensor:
        return attend(projections, heads, segments)

    def cross_entropy_(self, logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
        wide = logits.float()
        losses = functional.cross_entropy(wide, targets, reduction="none")
        if gradient:
            slope = torch.softmax(wide, -1)
            slope[torch.arange(len(targets), device=targets.device), targets] -= 1.0
            logits.copy_(slope)
        return losses

    def multiply_one(self, product: Product) -> Tensor:
        """One of `multiply`."""
        (left, right), *others = product.terms
        out, bias = product.out, product.bias
        if out is not None and out.dtype == left.dtype and bias is None and not others:
            return torch.mm(left, right, out=out)
        total = torch.mm(left, right) if bias is None else torch.addmm(bias, left, right)
        for other_left, other_right in others:
            total.addmm_(other_left, other_right)
        return total if out is None else out.copy_(total)

    def room_for_logits(self, hidden: Tensor, vocabulary_size: int) -> Tensor:
        room = hidden.new_empty(min(HEAD_CHUNK, len(hidden)), vocabulary_size + ROW_GAP)
        room[:, vocabulary_size:] = 0.0  # with AMX, oneDNN multiplies what follows a row by zero: no NaN may be there
        return room[:, :vocabulary_size]


_GELU = {"gelu_tanh": "tanh", "gelu_erf": "none"}


def _activate(kind: ActivationKind, gate: Tensor) -> Tensor:
    return functional.silu(gate) if kind == "silu" else functional.gelu(gate, approximate=_GELU[kind])
