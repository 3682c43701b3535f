"""Causal attention within segments of a flat batch; its cost lies only within the documents.

On a processor the flat tokens are cut into blocks of queries. A block sees the keys from the start of the segment its
first query belongs to up to its last query, so that short documents cost little and a long one half its square. Scores
are computed again in the backward pass instead of being kept. On a GPU, segments of one length go to the fused kernel
of `scaled_dot_product_attention` together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from lorabench.models.fast.differentiable import apply
from lorabench.models.fast.kernels import Kernels, Rotation, rotate

QUERY_BLOCK = 128
"""Queries computed together: enough for the matrix units, few enough to skip most of the upper triangle."""

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
class QueryBlock:
    """Queries [start, end) and the keys [first_key, end) they may see; lows int32 [end - start] from first_key on."""

    start: int
    end: int
    first_key: int
    lows: Tensor


@dataclass(frozen=True)
class Segments:
    """One batch's attention pattern, shared by all its layers."""

    starts: npt.NDArray[np.int32]
    rotation: Rotation | None
    blocks: tuple[QueryBlock, ...]

    @classmethod
    def of(cls, starts: npt.NDArray[np.int32], rotation: Rotation | None) -> Segments:
        """Cut the tokens of segments [starts[i], starts[i + 1]) into blocks of queries."""
        num_tokens = int(starts[-1])
        own_start = np.repeat(starts[:-1], np.diff(starts))
        blocks = []
        for start in range(0, num_tokens, QUERY_BLOCK):
            end = min(start + QUERY_BLOCK, num_tokens)
            first_key = int(own_start[start])
            lows = torch.from_numpy((own_start[start:end] - first_key).astype(np.int32))
            blocks.append(QueryBlock(start, end, first_key, lows))
        return cls(starts, rotation, tuple(blocks))


def attend(projections: tuple[Tensor, ...], heads: Heads, segments: Segments, kernels: Kernels) -> Tensor:
    """Projections [T, ...] -> attention output [T, query heads * width], differentiable."""
    if projections[0].device.type != "cpu":
        return attend_fused(projections, heads, segments)
    output: Tensor = apply(_BlockedAttention, heads, segments, kernels, *projections)
    return output


def attend_fused(projections: tuple[Tensor, ...], heads: Heads, segments: Segments) -> Tensor:
    """The same through `scaled_dot_product_attention`, one call for all segments of one length."""
    query, key, value = heads.views(projections)
    if segments.rotation is not None:
        query, key = rotate(query, segments.rotation, 1.0), rotate(key, segments.rotation, 1.0)
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


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Heads, segments: Segments, kernels: Kernels, *projections: Tensor) -> Tensor:
        query, key, value = heads.views(projections)
        num_tokens, rotation = query.shape[0], segments.rotation
        queries = kernels.gather_heads(query, QUERY_BLOCK, rotation)
        keys = kernels.gather_heads(key, num_tokens, rotation).view(heads.num_key_heads, num_tokens, heads.width)
        values = kernels.gather_heads(value, num_tokens, None).view(heads.num_key_heads, num_tokens, heads.width)
        blocks, sums = torch.empty_like(queries), []
        for block in segments.blocks:
            seen = slice(block.first_key, block.end)
            scores = torch.bmm(_rows(queries, block, heads), keys[:, seen].transpose(1, 2))
            sums.append(kernels.softmax_(scores, *_pattern(block), heads.factor))
            torch.bmm(scores, values[:, seen], out=_rows(blocks, block, heads))
        output = query.new_empty(num_tokens, heads.num_query_heads * heads.width)
        kernels.scatter_heads(blocks, output.unflatten(1, (-1, heads.width)), QUERY_BLOCK, None)
        ctx.save_for_backward(queries, keys, values, *sums)
        ctx.heads, ctx.segments, ctx.kernels = heads, segments, kernels
        ctx.shapes = [projection.shape for projection in projections]
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        heads, segments, kernels = ctx.heads, ctx.segments, ctx.kernels
        queries, keys, values, *sums = ctx.saved_tensors
        num_tokens = keys.shape[1]
        d_output = gradients[0].contiguous().unflatten(1, (-1, heads.width))
        d_outputs = kernels.gather_heads(d_output, QUERY_BLOCK, None)
        d_queries, d_keys, d_values = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
        for block, log_sums in zip(segments.blocks, sums, strict=True):
            seen = slice(block.first_key, block.end)
            query, d_out = _rows(queries, block, heads), _rows(d_outputs, block, heads)
            scores = torch.bmm(query, keys[:, seen].transpose(1, 2))
            slopes = torch.bmm(d_out, values[:, seen].transpose(1, 2))
            kernels.softmax_backward_(scores, slopes, *_pattern(block), heads.factor, log_sums)
            torch.bmm(slopes, keys[:, seen], out=_rows(d_queries, block, heads))
            d_keys[:, seen] += torch.bmm(slopes.transpose(1, 2), query)
            d_values[:, seen] += torch.bmm(scores.transpose(1, 2), d_out)
        d_projections = tuple(queries.new_empty(shape) for shape in ctx.shapes)
        d_query, d_key, d_value = heads.views(d_projections)
        kernels.scatter_heads(d_queries, d_query, QUERY_BLOCK, segments.rotation)
        kernels.scatter_heads(d_keys.view(-1), d_key, num_tokens, segments.rotation)
        kernels.scatter_heads(d_values.view(-1), d_value, num_tokens, None)
        return None, None, None, *d_projections


def _rows(blocks: Tensor, block: QueryBlock, heads: Heads) -> Tensor:
    """A block's part of a flat buffer as [key heads, group * queries, width]."""
    size = heads.num_query_heads * heads.width
    return blocks[block.start * size : block.end * size].view(heads.num_key_heads, -1, heads.width)


def _pattern(block: QueryBlock) -> tuple[int, int, Tensor]:
    return block.end - block.start, block.start - block.first_key, block.lows
