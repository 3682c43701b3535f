"""Causal attention within segments of a flat batch: its shape, and its computation through torch's fused kernel."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

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

    def views(self, projections: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [T, heads, width], keys and values [T, key heads, width] as views of the projections."""
        if self.layout == "separate":
            query, key, value = (projection.unflatten(1, (-1, self.width)) for projection in projections)
        elif self.layout == "stacked":
            query, key, value = projections[0].unflatten(1, (3, self.num_query_heads, self.width)).unbind(1)
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


def attend(projections: tuple[Tensor, ...], heads: Heads, segments: Segments) -> Tensor:
    """Projections [T, ...] -> attention output [T, query heads * width], differentiable.

    One call of `scaled_dot_product_attention` for all segments of one length.
    """
    query, key, value = heads.views(projections)
    if segments.rotation is not None:
        query, key = rotate(query, segments.rotation), rotate(key, segments.rotation)
    by_length: dict[int, list[int]] = defaultdict(list)
    for start, end in zip(segments.starts, segments.starts[1:], strict=False):
        by_length[int(end - start)].append(int(start))
    order, outputs = [], []
    for length, starts in by_length.items():
        index = (torch.tensor(starts)[:, None] + torch.arange(length)).flatten().to(query.device)
        q, k, v = (tensor[index].unflatten(0, (-1, length)).transpose(1, 2) for tensor in (query, key, value))
        grouped = heads.num_key_heads != heads.num_query_heads
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=heads.factor, enable_gqa=grouped)
        outputs.append(out.transpose(1, 2).flatten(0, 1).flatten(1))
        order.append(index)
    if len(order) == 1 and len(by_length) == 1:
        return outputs[0]
    return torch.cat(outputs)[torch.cat(order).argsort()]


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Turn the first components of heads [T, heads, width] by the rotation."""
    half = rotation.cosine.shape[1]
    cosine, sine = rotation.cosine[:, None], rotation.sine[:, None]
    first, second = heads[..., :half].float(), heads[..., half : 2 * half].float()
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat([turned[0].to(heads.dtype), turned[1].to(heads.dtype), heads[..., 2 * half :]], dim=-1)
