"""Causal attention within segments of a flat batch: its shape, and its computation through torch's fused kernel."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Layout = Literal["separate", "stacked", "interleaved"]
"""How projections hold queries, keys and values: three tensors; one, all queries first; one, head by head."""


@dataclass(frozen=True)
class Heads:
    """Shape of one layer's attention. Query heads are grouped over the key heads in order."""

    num_query_heads: int
    num_key_heads: int
    width: int
    factor: float
    layout: Layout
    window: int | None = None
    """How many tokens a query sees at most, itself among them."""
    soft_cap: float | None = None
    """Scores become soft_cap * tanh(score / soft_cap)."""

    def views(self, projections: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [T, heads, width], keys and values [T, key heads, width] as views of the projections."""
        if self.layout == "separate":
            query, key, value = (projection.unflatten(1, (-1, self.width)) for projection in projections)
        elif self.layout == "stacked":
            sizes = [self.num_query_heads * self.width, *[self.num_key_heads * self.width] * 2]
            query, key, value = (part.unflatten(1, (-1, self.width)) for part in projections[0].split(sizes, 1))
        else:
            query, key, value = projections[0].unflatten(1, (self.num_query_heads, 3, self.width)).unbind(2)
        return query, key, value


@dataclass(frozen=True)
class Rotation:
    """Rotary embedding of a batch: float32 [T, half]; the first 2 * half components of a head are turned."""

    cosine: Tensor
    sine: Tensor


@dataclass(frozen=True)
class Segments:
    """One batch's attention pattern, shared by all its layers: tokens [starts[i], starts[i + 1]) see one another."""

    starts: npt.NDArray[np.int32]
    rotation: Rotation | None
    bounds: Tensor | None = None
    """The starts once more where the model computes, int32 [S + 1], for kernels that read them there."""
    made: dict[Any, Any] = field(default_factory=dict, compare=False)
    """What kernels derive from the pattern in the first layer and use again in the others."""

    @property
    def longest(self) -> int:
        """Tokens of the longest segment."""
        return int(np.diff(self.starts).max())

    def bounds_on(self, device: torch.device) -> Tensor:
        """The starts on the device, int32 [S + 1]."""
        return torch.from_numpy(self.starts).to(device) if self.bounds is None else self.bounds


def attend(projections: tuple[Tensor, ...], heads: Heads, segments: Segments) -> Tensor:
    """Projections [T, ...] -> attention output [T, query heads * width], differentiable.

    One call of torch's fused kernel for all segments of one length.
    """
    query, key, value = heads.views(projections)
    if segments.rotation is not None:
        query, key = rotate(query, segments.rotation), rotate(key, segments.rotation)
    return attend_within(query, key, value, heads, segments.starts).flatten(1)


def attend_within(query: Tensor, key: Tensor, value: Tensor, heads: Heads, bounds: npt.NDArray[np.int32]) -> Tensor:
    """Queries [T, heads, width], keys and values [T, key heads, width] -> [T, heads, width], segment by segment."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for start, end in itertools.pairwise(bounds):
        by_length[int(end - start)].append(int(start))
    order, outputs = [], []
    for length, starts in by_length.items():
        index = (torch.tensor(starts)[:, None] + torch.arange(length)).flatten().to(query.device)
        q, k, v = (tensor[index].unflatten(0, (-1, length)).transpose(1, 2) for tensor in (query, key, value))
        outputs.append(_attend_alike(q, k, v, heads).transpose(1, 2).flatten(0, 1))
        order.append(index)
    if len(by_length) == 1:
        return outputs[0]
    return torch.cat(outputs)[torch.cat(order).argsort()]


def _attend_alike(query: Tensor, key: Tensor, value: Tensor, heads: Heads) -> Tensor:
    """Causal attention of documents of one length: queries [N, heads, L, width] -> [N, heads, L, width].

    The fused kernel knows no soft cap: with one, the scores of these documents exist, as they do in Transformers.
    """
    length, group = query.shape[2], heads.num_query_heads // heads.num_key_heads
    seen = None if heads.window is None or length <= heads.window else _within_window(length, heads.window, query)
    if heads.soft_cap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, is_causal=seen is None, scale=heads.factor, enable_gqa=group > 1
        )
    if seen is None:
        seen = _within_window(length, length, query)
    key, value = (tensor.repeat_interleave(group, 1) for tensor in (key, value))
    scores = heads.soft_cap * torch.tanh(query @ key.transpose(2, 3) * (heads.factor / heads.soft_cap))
    weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1, dtype=torch.float32)
    return weights.to(value.dtype) @ value


def _within_window(length: int, window: int, like: Tensor) -> Tensor:
    """Which tokens see which: bool [length, length]."""
    return torch.ones(length, length, dtype=torch.bool, device=like.device).tril().triu(1 - window)


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Turn the first components of heads [T, heads, width] by the rotation."""
    half = rotation.cosine.shape[1]
    cosine, sine = rotation.cosine[:, None], rotation.sine[:, None]
    first, second = heads[..., :half].float(), heads[..., half : 2 * half].float()
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat([turned[0].to(heads.dtype), turned[1].to(heads.dtype), heads[..., 2 * half :]], dim=-1)
