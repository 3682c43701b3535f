"""Norms and activations joined with the linear layers that read them, so that what lies between is not kept.

Kept are the residual stream and the layers' outputs; a norm or an activation is made again in the backward pass, when
the adapters' gradients need it. That is a pass over memory instead of a third of all activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from lorabench.fast.kernels import ActivationKind, Kernels, Norm
from lorabench.fast.linear import Projections, interleave, saved_lowered


@dataclass(frozen=True)
class Setting:
    """How a pass is computed: by which kernels, in which type, and whether dropout is on."""

    kernels: Kernels
    dtype: torch.dtype
    training: bool


class NormLinear(torch.autograd.Function):
    """(residual, delta or None) -> (residual + delta, or None; one [T, out] per layer of its norm)."""

    @staticmethod
    def forward(
        ctx: Any,
        residual: Tensor,
        delta: Tensor | None,
        norm: Norm,
        projections: Projections,
        setting: Setting,
        *factors: Tensor,
    ) -> tuple[Tensor | None, ...]:
        total, normed, mean, scale = setting.kernels.add_norm(residual, delta, norm, setting.dtype)
        outputs, lowered = projections.project(normed, setting.kernels, training=setting.training)
        means = (torch.empty(0) if mean is None else mean,)
        ctx.save_for_backward(total, scale, *means, *(() if lowered is None else lowered.tensors))
        ctx.norm, ctx.projections, ctx.setting = norm, projections, setting
        ctx.set_materialize_grads(False)
        return None if delta is None else total, *outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (total, scale, mean), lowered = saved_lowered(ctx, 3)
        kernels, dtype = ctx.setting.kernels, ctx.setting.dtype
        d_total, d_outputs = gradients[0], [gradient for gradient in gradients[1:] if gradient is not None]
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        d_normed, d_lowered, d_seconds = ctx.projections.input_gradient(d_outputs, lowered, kernels, wanted=wanted)
        center = mean if ctx.norm.centred else None
        d_residual: Tensor | None = None
        d_delta: Tensor | None = None
        normed: Tensor | None = None
        if d_normed is not None:
            d_residual, d_delta, normed = kernels.add_norm_backward(d_total, d_normed, total, center, scale, ctx.norm)
        elif ctx.projections.trains_firsts:
            normed = kernels.add_norm(total, None, ctx.norm, dtype)[1]
        factors: list[Tensor | None] = []
        if lowered is not None and d_lowered is not None:
            factors = interleave(ctx.projections.first_gradients(normed, d_lowered, lowered, kernels), d_seconds)
        return d_residual, d_delta if ctx.needs_input_grad[1] else None, None, None, None, *factors


class ActivationLinear(torch.autograd.Function):
    """(gate, up or None) -> the one layer that reads f(gate) or f(gate) * up, [T, out]."""

    @staticmethod
    def forward(
        ctx: Any,
        gate: Tensor,
        up: Tensor | None,
        kind: ActivationKind,
        projections: Projections,
        setting: Setting,
        *factors: Tensor,
    ) -> Tensor:
        active = setting.kernels.activation(kind, gate, up)
        (output,), lowered = projections.project(active, setting.kernels, training=setting.training)
        raised = (gate,) if up is None else (gate, up)
        ctx.save_for_backward(*raised, *(() if lowered is None else lowered.tensors))
        ctx.gated, ctx.kind, ctx.projections, ctx.setting = up is not None, kind, projections, setting
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        raised, lowered = saved_lowered(ctx, 2 if ctx.gated else 1)
        gate, up = raised if ctx.gated else (raised[0], None)
        kernels, wanted = ctx.setting.kernels, ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        d_active, d_lowered, d_seconds = ctx.projections.input_gradient(gradients, lowered, kernels, wanted=wanted)
        d_gate, d_up, active = None, None, None
        if d_active is not None:
            increment_version(raised)
            d_gate, d_up, active = kernels.activation_backward_(ctx.kind, gate, up, d_active)
        elif ctx.projections.trains_firsts:
            active = kernels.activation(ctx.kind, gate, up)
        factors: list[Tensor | None] = []
        if lowered is not None and d_lowered is not None:
            factors = interleave(ctx.projections.first_gradients(active, d_lowered, lowered, kernels), d_seconds)
        return d_gate, d_up, None, None, None, *factors


class NormOnly(torch.autograd.Function):
    """(residual, delta or None) -> the norm of their sum."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, delta: Tensor | None, norm: Norm, setting: Setting) -> Tensor:
        total, normed, mean, scale = setting.kernels.add_norm(residual, delta, norm, setting.dtype)
        ctx.save_for_backward(total, scale, *(() if mean is None else (mean,)))
        ctx.norm, ctx.setting = norm, setting
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        total, scale, *means = ctx.saved_tensors
        mean = means[0] if means else None
        d_residual, d_delta, _ = ctx.setting.kernels.add_norm_backward(None, gradients[0], total, mean, scale, ctx.norm)
        needs_residual, needs_delta = ctx.needs_input_grad[:2]
        return d_residual if needs_residual else None, d_delta if needs_delta else None, None, None
