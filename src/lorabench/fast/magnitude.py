"""DoRA's magnitudes: each output of an adapted layer, scaled by a trained length over that of its row of W + s B A.

The lengths follow from those of W's rows, which never change, and from products as small as the rank:
|W + s B A|^2 = |W|^2 + 2 s (B, W A^T) + s^2 (B, B A A^T), row by row. As Liu et al. 2024 propose and PEFT does, no
gradient passes through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lorabench.fast.differentiable import apply
from lorabench.fast.linear import Projections


def squared_lengths(weight: Tensor) -> Tensor:
    """Of the rows of a layer [in, out], float32 [out], without a copy of all of it in float32."""
    return torch.cat([part.float().square().sum(0) for part in weight.split(4096, dim=1)])


def with_magnitudes(outputs: Sequence[Tensor], projections: Projections) -> tuple[Tensor, ...]:
    """Outputs [T, out] of layers without their bias -> scaled, and with it, where a layer has magnitudes."""
    return tuple(
        output
        if layer.magnitude is None
        else apply(_Scaled, output, layer.magnitude.weight, _lengths(layer), layer.magnitude.bias)
        for layer, output in zip(projections.layers, outputs, strict=True)
    )


@torch.no_grad()
def _lengths(layer: Any) -> Tensor:
    """Float32 [out], rounded as PEFT rounds them to the base's type."""
    a, b, weight = layer.a, layer.b, layer.weight
    crossed = (b * torch.mm(a.to(weight.dtype), weight).t().float()).sum(1)
    own = (torch.mm(b, torch.mm(a, a.t())) * b).sum(1)
    squares = layer.magnitude.squares + 2.0 * layer.scaling * crossed + layer.scaling**2 * own
    lengths: Tensor = squares.clamp_min_(0.0).sqrt_().to(weight.dtype).float()
    return lengths


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, magnitude: Tensor, lengths: Tensor, bias: Tensor | None) -> Tensor:
        scale = magnitude / lengths
        ctx.save_for_backward(output, scale, lengths)
        scaled = torch.empty_like(output)
        if bias is None:
            return torch.mul(output, scale, out=scaled)
        return torch.addcmul(bias.to(scale.dtype), output.to(scale.dtype), scale).to(output.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        output, scale, lengths = ctx.saved_tensors
        d_magnitude = (gradient * output).sum(0, dtype=torch.float32).div_(lengths)
        return torch.mul(gradient, scale, out=torch.empty_like(gradient)), d_magnitude, None, None
