"""The least time that a step's matrix products take on this machine, measured on the model's own shapes.

A frozen base needs two products per linear layer (forward, and the gradient of its input), the head two, an adapter
six narrow ones, attention six over half a square. Nothing else is counted, so no program that computes the same can be
faster by more than these products can be.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lorabench.models.fast.head import HEAD_CHUNK
from lorabench.models.shape import ModelShape

NUM_REPEATS = 7
MAX_SECONDS = 2.0
"""Slow products are repeated less often."""


@dataclass(frozen=True)
class Products:
    """Seconds of the products of one pass over `num_tokens` tokens."""

    num_tokens: int
    linear: float
    head: float
    adapters: float
    attention: float
    """Forward and backward. Forward alone takes half the linear and head products and a third of the others."""

    @property
    def training_tokens_per_second(self) -> float:
        """The limit of training."""
        return self.num_tokens / (self.linear + self.head + self.adapters + self.attention)

    @property
    def evaluation_tokens_per_second(self) -> float:
        """The limit of evaluation."""
        forward = (self.linear + self.head) / 2 + (self.adapters + self.attention) / 3
        return self.num_tokens / forward


@dataclass(frozen=True)
class _Clock:
    """Times products in one type on one device."""

    dtype: torch.dtype
    device: torch.device

    def random(self, *sizes: int) -> Tensor:
        return torch.randn(*sizes, device=self.device).to(self.dtype)

    def median(self, product: Callable[[], object]) -> float:
        seconds: list[float] = []
        while len(seconds) <= NUM_REPEATS and (len(seconds) < 3 or sum(seconds) < MAX_SECONDS):
            started = time.perf_counter()
            product()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds[1:])


def measure_products(
    shape: ModelShape,
    adapted: Mapping[str, tuple[int, int]],
    *,
    num_key_heads: int,
    num_query_heads: int,
    head_width: int,
    rank: int,
    context_length: int,
    num_rows: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Products:
    """Time every distinct product once and count how often a step needs it. `adapted`: modules with an adapter."""
    clock = _Clock(dtype, device)
    num_tokens = num_rows * context_length
    linear = sum(
        count * _linear_seconds(clock, num_tokens, *sizes) for sizes, count in Counter(shape.linears.values()).items()
    )
    adapters = sum(
        count * _adapter_seconds(clock, num_tokens, rank, *sizes) for sizes, count in Counter(adapted.values()).items()
    )
    chunk = min(HEAD_CHUNK, num_tokens)
    head = _linear_seconds(clock, chunk, shape.hidden_size, shape.vocabulary_size) * num_tokens / chunk
    group = num_query_heads // num_key_heads
    attention = shape.num_layers * _attention_seconds(
        clock, num_rows * num_key_heads, group * context_length, context_length, head_width
    )
    return Products(num_tokens, linear, head, adapters, attention)


def _linear_seconds(clock: _Clock, num_tokens: int, inputs: int, outputs: int) -> float:
    x, weight, y = clock.random(num_tokens, inputs), clock.random(outputs, inputs), clock.random(num_tokens, outputs)
    out, d_x = torch.empty_like(y), torch.empty_like(x)
    return clock.median(lambda: (torch.mm(x, weight.t(), out=out), torch.mm(y, weight, out=d_x)))


def _adapter_seconds(clock: _Clock, num_tokens: int, rank: int, inputs: int, outputs: int) -> float:
    x, y, u = clock.random(num_tokens, inputs), clock.random(num_tokens, outputs), clock.random(num_tokens, rank)
    a, b = clock.random(rank, inputs), clock.random(outputs, rank)
    narrow, d_a, d_b = torch.empty_like(u), torch.empty_like(a), torch.empty_like(b)

    def products() -> None:
        torch.mm(x, a.t(), out=narrow)
        y.addmm_(u, b.t(), beta=0.5)
        torch.mm(y, b, out=narrow)
        torch.mm(y.t(), u, out=d_b)
        torch.mm(u.t(), x, out=d_a)
        x.addmm_(u, a, beta=0.5)

    return clock.median(products)


def _attention_seconds(clock: _Clock, batch: int, num_queries: int, num_keys: int, width: int) -> float:
    """Six products of half a square: a causal mask hides the other half."""
    queries, keys = clock.random(batch, num_queries, width), clock.random(batch, num_keys, width)
    scores = clock.random(batch, num_queries, num_keys)
    d_queries, d_keys = torch.empty_like(queries), torch.empty_like(keys)

    def products() -> None:
        torch.bmm(queries, keys.transpose(1, 2), out=scores)
        torch.bmm(scores, keys, out=d_queries)
        torch.bmm(scores.transpose(1, 2), queries, out=d_keys)

    return clock.median(products)
