"""The one seam between machines: the passes around the matrix products, in torch or compiled for this processor.

`PlainKernels` states each pass in torch operations, for any device. `lorabench.models.fast.native` has the same
passes in C++, where a tensor is read and written once instead of once per operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

ActivationKind = Literal["silu", "gelu_tanh", "gelu_erf"]


@dataclass(frozen=True)
class Norm:
    """RMSNorm, or LayerNorm where `centred`. weight, bias: float32 [width]."""

    weight: Tensor
    bias: Tensor | None
    epsilon: float
    centred: bool


@dataclass(frozen=True)
class Rotation:
    """Rotary embedding of a batch: float32 [T, half]; the first 2 * half components of a head are turned."""

    cosine: Tensor
    sine: Tensor


class Kernels(Protocol):
    """Passes over activations [T, ...] of float32 or bfloat16; sums and the residual stream are float32."""

    name: str
    compile_seconds: float
    """What compiling them took in this process."""

    def add_norm(
        self, residual: Tensor, delta: Tensor | None, norm: Norm, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Residual + delta (float32), its norm in `dtype`, and per row the mean (LayerNorm) and 1 / deviation."""

    def add_norm_backward(
        self, d_total: Tensor | None, d_normed: Tensor, total: Tensor, mean: Tensor | None, scale: Tensor, norm: Norm
    ) -> tuple[Tensor, Tensor]:
        """The residual's gradient in float32, and the same in the activations' type."""

    def activation(self, kind: ActivationKind, gate: Tensor, up: Tensor | None) -> Tensor:
        """f(gate), times `up` where there is one."""

    def activation_backward(
        self, kind: ActivationKind, gate: Tensor, up: Tensor | None, d_out: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Gradients of gate and up, and beside them the activation itself once more."""

    def gather_heads(self, source: Tensor, block: int, rotation: Rotation | None) -> Tensor:
        """[T, heads, width] of any strides, turned by the rotation, into blocks of tokens laid out [heads, n, width].

        The result is flat: the block that starts at token s starts at s * heads * width.
        """

    def scatter_heads(self, blocks: Tensor, target: Tensor, block: int, rotation: Rotation | None) -> None:
        """The inverse of `gather_heads`, rotation included, into `target` [T, heads, width]."""

    def softmax_(self, scores: Tensor, queries: int, offset: int, lows: Tensor, factor: float) -> Tensor:
        """Scores [batch, rows, keys] become softmax(factor * scores) in place; returns the log sums [batch * rows].

        Row r holds query r % queries, which sees the keys from lows[query] (int32) to offset + query.
        """

    def softmax_backward_(
        self, scores: Tensor, gradients: Tensor, queries: int, offset: int, lows: Tensor, factor: float, sums: Tensor
    ) -> None:
        """Scores become probabilities, and the probabilities' gradients the scores', in place."""

    def cross_entropy_(self, logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
        """Nats float32 [n] of targets [n]; with `gradient`, logits [n, V] become softmax minus one-hot."""


class PlainKernels:
    """Every pass in torch operations."""

    name = "torch"
    compile_seconds = 0.0

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
    ) -> tuple[Tensor, Tensor]:
        unit = (total if mean is None else total - mean) * scale
        slope = d_normed.float() * norm.weight
        d_x = slope - unit * (slope * unit).mean(-1, keepdim=True)
        if mean is not None:
            d_x = d_x - slope.mean(-1, keepdim=True)
        d_x = d_x * scale
        if d_total is not None:
            d_x = d_x + d_total
        return d_x, d_x.to(d_normed.dtype)

    def activation(self, kind: ActivationKind, gate: Tensor, up: Tensor | None) -> Tensor:
        value = _activate(kind, gate)
        return value if up is None else value * up

    def activation_backward(
        self, kind: ActivationKind, gate: Tensor, up: Tensor | None, d_out: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        value = _activate(kind, gate)
        d_value = d_out if up is None else d_out * up
        if kind == "silu":
            d_gate = torch.ops.aten.silu_backward(d_value, gate)
        else:
            d_gate = torch.ops.aten.gelu_backward(d_value, gate, approximate=_GELU[kind])
        return (d_gate, None, value) if up is None else (d_gate, d_out * value, value * up)

    def gather_heads(self, source: Tensor, block: int, rotation: Rotation | None) -> Tensor:
        turned = source if rotation is None else rotate(source, rotation, 1.0)
        pieces = turned.split(block)
        return torch.cat([piece.transpose(0, 1).reshape(-1) for piece in pieces])

    def scatter_heads(self, blocks: Tensor, target: Tensor, block: int, rotation: Rotation | None) -> None:
        num_tokens, heads, width = target.shape
        for start in range(0, num_tokens, block):
            length = min(block, num_tokens - start)
            piece = blocks[start * heads * width : (start + length) * heads * width].view(heads, length, width)
            target[start : start + length] = piece.transpose(0, 1)
        if rotation is not None:
            target.copy_(rotate(target, rotation, -1.0))

    def softmax_(self, scores: Tensor, queries: int, offset: int, lows: Tensor, factor: float) -> Tensor:
        hidden = _hidden(scores, queries, offset, lows)
        scaled = (scores.float() * factor).masked_fill_(hidden, float("-inf"))
        sums = scaled.logsumexp(-1)
        scores.copy_(torch.exp(scaled - sums.unsqueeze(-1)))
        return sums.reshape(-1)

    def softmax_backward_(
        self, scores: Tensor, gradients: Tensor, queries: int, offset: int, lows: Tensor, factor: float, sums: Tensor
    ) -> None:
        hidden = _hidden(scores, queries, offset, lows)
        log_sums = sums.view(scores.shape[:-1]).unsqueeze(-1)
        probabilities = torch.exp(scores.float() * factor - log_sums).masked_fill_(hidden, 0.0)
        along = (probabilities * gradients).sum(-1, keepdim=True)
        gradients.copy_(probabilities * (gradients - along) * factor)
        scores.copy_(probabilities)

    def cross_entropy_(self, logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
        wide = logits.float()
        losses = functional.cross_entropy(wide, targets, reduction="none")
        if gradient:
            slope = torch.softmax(wide, -1)
            slope[torch.arange(len(targets), device=targets.device), targets] -= 1.0
            logits.copy_(slope)
        return losses


_GELU = {"gelu_tanh": "tanh", "gelu_erf": "none"}


def _activate(kind: ActivationKind, gate: Tensor) -> Tensor:
    return functional.silu(gate) if kind == "silu" else functional.gelu(gate, approximate=_GELU[kind])


def rotate(heads: Tensor, rotation: Rotation, sign: float) -> Tensor:
    """Turn the first components of heads [T, heads, width] by the rotation (sign 1.0) or back (-1.0)."""
    half = rotation.cosine.shape[1]
    cosine, sine = rotation.cosine[:, None], sign * rotation.sine[:, None]
    first, second = heads[..., :half].float(), heads[..., half : 2 * half].float()
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat([turned[0].to(heads.dtype), turned[1].to(heads.dtype), heads[..., 2 * half :]], dim=-1)


def _hidden(scores: Tensor, queries: int, offset: int, lows: Tensor) -> Tensor:
    query = torch.arange(scores.shape[1], device=scores.device) % queries
    key = torch.arange(scores.shape[2], device=scores.device)
    return (key[None] < lows.long()[query][:, None]) | (key[None] > (offset + query)[:, None])
