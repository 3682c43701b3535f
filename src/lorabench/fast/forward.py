"""The decoder's forward pass over a flat batch, from a plan of its layers that any of the families fills in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lorabench.fast.attention import Heads, Rotation, Segments
from lorabench.fast.differentiable import apply
from lorabench.fast.head import head_loss, head_nll
from lorabench.fast.kernels import ActivationKind, Kernels, Norm
from lorabench.fast.linear import Projections, linear
from lorabench.fast.recomputed import ActivationLinear, FinalNorm, NormLinear, Setting
from lorabench.tokens.packing import PackedBatch


@dataclass(frozen=True)
class Layer:
    """One decoder layer. `up` holds the gate first where the activation is gated."""

    attention_norm: Norm
    query_key_value: Projections
    heads: Heads
    attention_out: Projections
    mlp_norm: Norm
    up: Projections
    activation: ActivationKind
    down: Projections


@dataclass(frozen=True)
class Decoder:
    """A causal language model as the fast path computes it."""

    embed: Callable[[Tensor, Tensor], Tensor]
    """Token ids and positions [T] -> float32 [T, width]."""
    inverse_frequencies: Tensor | None
    """Rotary embedding: float32 [half], or None for learned positions."""
    layers: tuple[Layer, ...]
    parallel: bool
    """Whether attention and MLP read the same residual stream."""
    final_norm: Norm
    head_weight: Tensor
    dtype: torch.dtype
    kernels: Kernels

    def loss(self, batch: PackedBatch) -> Tensor:
        """Nats summed over the scored targets, float32 scalar, differentiable in the adapters."""
        targets = torch.from_numpy(batch.targets).to(self.head_weight.device)
        return head_loss(self._hidden(batch, training=True), self.head_weight, targets, self.kernels)

    def token_nll(self, batch: PackedBatch) -> Tensor:
        """Nats of each target, float32 [T]; 0 where nothing is scored. No gradient, no dropout."""
        targets = torch.from_numpy(batch.targets).to(self.head_weight.device)
        with torch.no_grad():
            return head_nll(self._hidden(batch, training=False), self.head_weight, targets, self.kernels)

    def _hidden(self, batch: PackedBatch, *, training: bool) -> Tensor:
        device = self.head_weight.device
        positions = torch.from_numpy(batch.position_ids).to(device)
        residual = self.embed(torch.from_numpy(batch.input_ids).to(device), positions)
        segments = Segments(batch.segment_starts, self._rotation(positions))
        delta: Tensor | None = None
        for layer in self.layers:
            residual, projected = self._norm_linear(
                residual, delta, layer.attention_norm, layer.query_key_value, training
            )
            attended = self.kernels.attend(projected, layer.heads, segments)
            (delta,) = linear(attended, layer.attention_out, self.kernels, training=training)
            if self.parallel:
                _, raised = self._norm_linear(residual, None, layer.mlp_norm, layer.up, training)
                delta = delta + self._activation_linear(layer, raised, training)
            else:
                residual, raised = self._norm_linear(residual, delta, layer.mlp_norm, layer.up, training)
                delta = self._activation_linear(layer, raised, training)
        return self._final_norm(residual, delta)

    def _norm_linear(
        self, residual: Tensor, delta: Tensor | None, norm: Norm, projections: Projections, training: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The residual stream after `delta`, and the projections of its norm."""
        setting = Setting(self.kernels, self.dtype, training)
        total, *projected = apply(NormLinear, residual, delta, norm, projections, setting, *projections.factors)
        return residual if delta is None else total, tuple(projected)

    def _activation_linear(self, layer: Layer, raised: tuple[Tensor, ...], training: bool) -> Tensor:
        gate, up = raised if len(raised) == 2 else (raised[0], None)
        setting = Setting(self.kernels, self.dtype, training)
        lowered: Tensor = apply(ActivationLinear, gate, up, layer.activation, layer.down, setting, *layer.down.factors)
        return lowered

    def _final_norm(self, residual: Tensor, delta: Tensor | None) -> Tensor:
        normed: Tensor = apply(FinalNorm, residual, delta, self.final_norm, Setting(self.kernels, self.dtype, False))
        return normed

    def _rotation(self, positions: Tensor) -> Rotation | None:
        if self.inverse_frequencies is None:
            return None
        angles = positions.float()[:, None] * self.inverse_frequencies
        return Rotation(angles.cos(), angles.sin())
