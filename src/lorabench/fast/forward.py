"""The decoder's forward pass over a flat batch, from a plan of its layers that any of the families fills in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lorabench.core.device import upload
from lorabench.fast.attention import Heads, Rotation, Segments
from lorabench.fast.checkpointing import checkpointed
from lorabench.fast.differentiable import apply
from lorabench.fast.head import Head, Targets, head_loss, head_nll
from lorabench.fast.kernels import ActivationKind, Kernels, Norm
from lorabench.fast.linear import Projections, linear
from lorabench.fast.magnitude import with_magnitudes
from lorabench.fast.recomputed import ActivationLinear, NormLinear, NormOnly, Setting
from lorabench.fast.trained_norm import trained_norm
from lorabench.tokens.packing import IGNORED, PackedBatch


@dataclass(frozen=True, eq=False)
class Rotary:
    """A rotary embedding. frequencies: float32 [half]; sines and cosines are multiplied by `factor`."""

    frequencies: Tensor
    factor: float = 1.0
    long_frequencies: Tensor | None = None
    """Those of segments of more than `longest` tokens."""
    longest: int = 0

    def rotation(self, positions: Tensor, starts: npt.NDArray[np.int32]) -> Rotation:
        """Of tokens at positions [T] in their segments."""
        frequencies = self.frequencies[None]
        if self.long_frequencies is not None:
            lengths = np.diff(starts)
            (is_long,) = upload([np.repeat(lengths > self.longest, lengths).astype(np.int64)], positions.device)
            frequencies = torch.where(is_long.bool()[:, None], self.long_frequencies, self.frequencies)
        angles = positions.float()[:, None] * frequencies
        cosine, sine = angles.cos(), angles.sin()
        return Rotation(cosine, sine) if self.factor == 1.0 else Rotation(cosine * self.factor, sine * self.factor)


@dataclass(frozen=True)
class Uploaded:
    """A packed batch, on its way to where the model computes or there already: int64 [T] each."""

    packed: PackedBatch
    input_ids: Tensor
    positions: Tensor
    targets: Targets
    starts: npt.NDArray[np.int32]
    bounds: Tensor
    """The starts, int32 [S + 1] on the device."""

    @classmethod
    def of(cls, batch: PackedBatch, device: torch.device) -> Uploaded:
        """One copy of all that the model needs."""
        places = np.flatnonzero(batch.targets != IGNORED)
        everything = len(places) == len(batch.targets)
        starts = batch.segment_starts.astype(np.int64)
        arrays = [batch.input_ids, batch.position_ids, starts, batch.targets[places]]
        ids, positions, bounds, wanted, *others = upload(arrays if everything else [*arrays, places], device)
        targets = Targets(wanted, None if everything else others[0])
        return cls(batch, ids, positions, targets, batch.segment_starts, bounds.int())

    def segments(self, rotary: Rotary | None, made: dict[Any, Any]) -> Segments:
        """The pattern of attention, turned as `rotary` says."""
        rotation = None if rotary is None else rotary.rotation(self.positions, self.starts)
        return Segments(self.starts, rotation, self.bounds, made)


@dataclass(frozen=True)
class Layer:
    """One decoder layer. `up` holds the gate first where the activation is gated."""

    attention_norm: Norm | None
    """Of the residual stream; None where attention reads the stream as it is."""
    query_key_value: Projections
    heads: Heads
    attention_out: Projections
    mlp_norm: Norm | None
    up: Projections
    activation: ActivationKind
    down: Projections
    rotary: Rotary | None = None
    """None where positions are learned, or not looked at."""
    query_key_norms: tuple[Norm, Norm] | None = None
    """As wide as one head, or as all of them."""
    gate_in_up: bool = False
    """One projection holds the gate's outputs, then as many others."""
    after_attention: Norm | None = None
    after_mlp: Norm | None = None
    """Of what is added to the residual stream."""
    residual_factor: float = 1.0
    """What it is multiplied by."""


Attend = Callable[[int, Layer, tuple[Tensor, ...]], Tensor]
"""The index of a layer, the layer and its projections [T, ...] -> attention [T, query heads * width]."""


@dataclass(frozen=True)
class Decoder:
    """A causal language model as the fast path computes it."""

    embed: Callable[[Tensor, Tensor], Tensor]
    """Token ids and positions [T] -> float32 [T, width]."""
    layers: tuple[Layer, ...]
    parallel: bool
    """Whether attention and MLP read the same residual stream."""
    final_norm: Norm
    head: Head
    dtype: torch.dtype
    """Of the activations."""
    kernels: Kernels

    def upload(self, batch: PackedBatch | Uploaded) -> Uploaded:
        """Send it where the model computes, without waiting for it to arrive."""
        return batch if isinstance(batch, Uploaded) else Uploaded.of(batch, self.head.weight.device)

    def loss(self, batch: PackedBatch | Uploaded, *, checkpointing: bool = False) -> Tensor:
        """Nats summed over the scored targets, float32 scalar, differentiable in the adapters.

        With `checkpointing` each layer is computed once more in the backward pass.
        """
        there = self.upload(batch)
        hidden = self.hidden(there, training=True, checkpointing=checkpointing)
        return head_loss(hidden, self.head, there.targets, self.kernels)

    def token_nll(self, batch: PackedBatch) -> Tensor:
        """Nats of each target, float32 [T]; 0 where nothing is scored. No gradient, no dropout."""
        there = self.upload(batch)
        with torch.no_grad():
            return head_nll(self.hidden(there, training=False), self.head, there.targets, self.kernels)

    def hidden(self, batch: Uploaded, *, training: bool, checkpointing: bool = False) -> Tensor:
        """The last norm's outputs [T, width]."""
        segments = self.segments(batch)

        def attend(index: int, layer: Layer, projected: tuple[Tensor, ...]) -> Tensor:
            del index
            return self.kernels.attend(projected, layer.heads, segments[layer.rotary])

        embedded = self.embed(batch.input_ids, batch.positions)
        return self.through(embedded, attend, training=training, checkpointing=checkpointing)

    def segments(self, batch: Uploaded) -> dict[Rotary | None, Segments]:
        """The batch's pattern of attention, by the layers' rotary embeddings."""
        made: dict[Any, Any] = {}
        return {rotary: batch.segments(rotary, made) for rotary in {layer.rotary for layer in self.layers}}

    def through(self, residual: Tensor, attend: Attend, *, training: bool, checkpointing: bool = False) -> Tensor:
        """Embeddings [T, width] through all layers and the last norm."""
        delta: Tensor | None = None
        for index, layer in enumerate(self.layers):
            compute = partial(self._layer, partial(attend, index, layer), layer, training)
            residual, delta = checkpointed(compute, residual, delta) if checkpointing else compute(residual, delta)
        return self._norm(residual, delta, self.final_norm)

    def _layer(
        self,
        attend: Callable[[tuple[Tensor, ...]], Tensor],
        layer: Layer,
        training: bool,
        residual: Tensor,
        delta: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The residual stream, what the layer before adds to it -> the same after this layer."""
        residual, projected = self._norm_linear(residual, delta, layer.attention_norm, layer.query_key_value, training)
        attended = attend(self._norm_heads(layer, projected))
        lowered = linear(attended, layer.attention_out, self.kernels, training=training)
        (delta,) = with_magnitudes(lowered, layer.attention_out)
        delta = self._added(delta, layer.after_attention, layer.residual_factor)
        if self.parallel:
            _, raised = self._norm_linear(residual, None, layer.mlp_norm, layer.up, training)
            return residual, delta + self._activation_linear(layer, raised, training)
        residual, raised = self._norm_linear(residual, delta, layer.mlp_norm, layer.up, training)
        delta = self._activation_linear(layer, raised, training)
        return residual, self._added(delta, layer.after_mlp, layer.residual_factor)

    def _norm_linear(
        self, residual: Tensor, delta: Tensor | None, norm: Norm | None, projections: Projections, training: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The residual stream after `delta`, and the projections of its norm."""
        if norm is None or norm.trained is not None:
            total = residual if delta is None else residual + delta
            read = total if norm is None else trained_norm(total, norm)
            outputs = linear(read.to(self.dtype), projections, self.kernels, training=training)
            return total, with_magnitudes(outputs, projections)
        setting = Setting(self.kernels, self.dtype, training)
        total, *projected = apply(NormLinear, residual, delta, norm, projections, setting, *projections.factors)
        return residual if delta is None else total, with_magnitudes(projected, projections)

    def _norm_heads(self, layer: Layer, projected: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if layer.query_key_norms is None:
            return projected
        pairs = zip(projected, layer.query_key_norms, strict=False)
        normed = [self._norm(part.view(-1, len(norm.weight)).float(), None, norm).view_as(part) for part, norm in pairs]
        return (*normed, projected[2])

    def _added(self, delta: Tensor, norm: Norm | None, factor: float) -> Tensor:
        """What an attention or an MLP adds to the residual stream."""
        delta = delta if norm is None else self._norm(delta.float(), None, norm)
        return delta if factor == 1.0 else delta * factor

    def _activation_linear(self, layer: Layer, raised: tuple[Tensor, ...], training: bool) -> Tensor:
        if layer.gate_in_up:
            raised = tuple(part.contiguous() for part in raised[0].chunk(2, 1))
        gate, up = raised if len(raised) == 2 else (raised[0], None)
        setting = Setting(self.kernels, self.dtype, training)
        lowered: Tensor = apply(ActivationLinear, gate, up, layer.activation, layer.down, setting, *layer.down.factors)
        return with_magnitudes([lowered], layer.down)[0]

    def _norm(self, residual: Tensor, delta: Tensor | None, norm: Norm) -> Tensor:
        if norm.trained is not None:
            return trained_norm(residual if delta is None else residual + delta, norm).to(self.dtype)
        normed: Tensor = apply(NormOnly, residual, delta, norm, Setting(self.kernels, self.dtype, False))
        return normed
