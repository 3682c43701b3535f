"""The time that a step's matrix products take in torch's matrix library on this machine, on the model's own shapes.

A frozen base needs two products per linear layer (forward, and the gradient of its input), the head two, an adapter
six narrow ones, attention six over half a square. Nothing else is counted: who multiplies by that library stays below
this limit, and only who multiplies faster can come out above it.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lorabench.core.device import synchronize
from lorabench.fast.choice import kernels_for
from lorabench.models.shape import ModelShape

MIN_ROUNDS = 3
SECONDS = 2.0
"""At least, and every product once per round: the speed of a machine changes from second to second."""
REPEATS = 4
"""Of a product in a round on a GPU."""


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


@dataclass
class _Bench:
    """Products of one type on one device, to be timed."""

    dtype: torch.dtype
    device: torch.device
    products: list[Callable[[], object]] = field(default_factory=list)

    def random(self, *sizes: int) -> Tensor:
        return torch.randn(*sizes, device=self.device).to(self.dtype)

    def add(self, product: Callable[[], object]) -> int:
        """Returns the product's place in the list of seconds."""
        self.products.append(product)
        return len(self.products) - 1

    def medians(self) -> list[float]:
        """Seconds of each product; the first round is a warm-up."""
        rounds: list[list[float]] = []
        started = time.perf_counter()
        while len(rounds) <= MIN_ROUNDS or time.perf_counter() - started < SECONDS:
            rounds.append(self._marked() if self.device.type == "cuda" else list(map(self._seconds, self.products)))
        return [statistics.median(seconds) for seconds in zip(*rounds[1:], strict=True)]

    def _marked(self) -> list[float]:
        """Seconds by the card's own clock: products are asked for ahead of it, and it is waited for once."""
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(self.products) + 1)]
        marks[0].record()
        for product, mark in zip(self.products, marks[1:], strict=True):
            for _ in range(REPEATS):
                product()
            mark.record()
        marks[-1].synchronize()
        return [begin.elapsed_time(end) / 1e3 / REPEATS for begin, end in itertools.pairwise(marks)]

    def _seconds(self, product: Callable[[], object]) -> float:
        started = time.perf_counter()
        product()
        synchronize(self.device)
        return time.perf_counter() - started


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
    bench = _Bench(dtype, device)
    num_tokens = num_rows * context_length
    hidden = torch.empty(num_tokens, 1, dtype=dtype, device=device)
    kernels = kernels_for(device.type)
    vocabulary = -(-shape.vocabulary_size // kernels.head_alignment) * kernels.head_alignment
    chunk = len(kernels.room_for_logits(hidden, vocabulary))
    group = num_query_heads // num_key_heads
    linears = {bench.add(_linear(bench, num_tokens, *sizes)): n for sizes, n in Counter(shape.linears.values()).items()}
    adapters = {
        bench.add(_adapter(bench, num_tokens, rank, *sizes)): n for sizes, n in Counter(adapted.values()).items()
    }
    head = bench.add(_linear(bench, chunk, shape.hidden_size, vocabulary))
    attention = bench.add(
        _attention(bench, num_rows * num_key_heads, group * context_length, context_length, head_width)
    )
    seconds = bench.medians()
    return Products(
        num_tokens,
        linear=sum(count * seconds[place] for place, count in linears.items()),
        head=seconds[head] * num_tokens / chunk,
        adapters=sum(count * seconds[place] for place, count in adapters.items()),
        attention=seconds[attention] * shape.num_layers,
    )


def _linear(bench: _Bench, num_tokens: int, inputs: int, outputs: int) -> Callable[[], object]:
    x, weight, y = bench.random(num_tokens, inputs), bench.random(outputs, inputs), bench.random(num_tokens, outputs)
    out, d_x = torch.empty_like(y), torch.empty_like(x)
    return lambda: (torch.mm(x, weight.t(), out=out), torch.mm(y, weight, out=d_x))


def _adapter(bench: _Bench, num_tokens: int, rank: int, inputs: int, outputs: int) -> Callable[[], object]:
    x, y, u = bench.random(num_tokens, inputs), bench.random(num_tokens, outputs), bench.random(num_tokens, rank)
    a, b = bench.random(rank, inputs), bench.random(outputs, rank)
    narrow, d_a, d_b = torch.empty_like(u), torch.empty_like(a), torch.empty_like(b)

    def products() -> None:
        torch.mm(x, a.t(), out=narrow)
        y.addmm_(u, b.t(), beta=0.5)
        torch.mm(y, b, out=narrow)
        torch.mm(y.t(), u, out=d_b)
        torch.mm(u.t(), x, out=d_a)
        x.addmm_(u, a, beta=0.5)

    return products


def _attention(bench: _Bench, batch: int, num_queries: int, num_keys: int, width: int) -> Callable[[], object]:
    """Six products of half a square: a causal mask hides the other half."""
    queries, keys = bench.random(batch, num_queries, width), bench.random(batch, num_keys, width)
    scores = bench.random(batch, num_queries, num_keys)
    d_queries, d_keys = torch.empty_like(queries), torch.empty_like(keys)

    def products() -> None:
        torch.bmm(queries, keys.transpose(1, 2), out=scores)
        torch.bmm(scores, keys, out=d_queries)
        torch.bmm(scores.transpose(1, 2), queries, out=d_keys)

    return products
