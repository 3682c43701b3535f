"""Training steps as CUDA graphs: Python launches a small model's kernels more slowly than a card computes them.

A graph is one launch. It reads the batch where the captured one lay, so the next one is copied there, its documents and
scored places made up to a number that other batches share. See https://docs.pytorch.org/docs/stable/notes/cuda.html.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lorabench.fast.forward import Decoder, Uploaded
from lorabench.fast.gpu.attention import takes_varlen
from lorabench.fast.gpu.kernels import GpuKernels
from lorabench.fast.head import Targets

MOST_KEPT = 8
"""Graphs of one adapter, each for one size of batches."""
FEWEST_SEGMENTS, SHORTEST = 64, 1024
"""Empty documents and shorter ones cost next to nothing, and a graph of their own would."""
SCORED_TOGETHER = 1024
"""Numbers of scored tokens are made up to a multiple of it."""


class Graph(Protocol):
    """What `torch.cuda.CUDAGraph` is."""

    def replay(self) -> None:
        """Compute once more what was captured."""


Capture = Callable[[Callable[[], None]], Graph]
"""Captures what a function computes. It is not computed by that."""


@dataclass(frozen=True)
class Size:
    """What a graph is made for."""

    num_tokens: int
    num_segments: int
    longest: int
    num_scored: int

    @classmethod
    def of(cls, batch: Uploaded) -> Size:
        """The batch's, rounded up so that others have it too."""
        num_tokens, lengths = len(batch.input_ids), np.diff(batch.starts)
        scored = -(-len(batch.targets.ids) // SCORED_TOGETHER) * SCORED_TOGETHER
        return cls(
            num_tokens,
            _next_power(len(lengths), FEWEST_SEGMENTS),
            min(num_tokens, _next_power(int(lengths.max()), SHORTEST)),
            min(num_tokens, scored),
        )


def _next_power(number: int, least: int) -> int:
    return max(least, 1 << (number - 1).bit_length())


class Batch:
    """Where a graph reads its batch."""

    def __init__(self, size: Size, like: Uploaded) -> None:
        device, count = like.input_ids.device, size.num_scored
        ids, positions = torch.empty_like(like.input_ids), torch.empty_like(like.positions)
        bounds = torch.empty(size.num_segments + 1, dtype=torch.int32, device=device)
        wanted, places = (torch.empty(count, dtype=torch.int64, device=device) for _ in range(2))
        starts = np.array([0, size.longest], dtype=np.int32)  # read for the longest alone: `can_capture` sees to that
        targets = Targets(wanted, places, is_filled=True)
        self.there = Uploaded(like.packed, ids, positions, targets, starts, bounds)
        self._everything = torch.arange(size.num_tokens, device=device)

    def fill(self, batch: Uploaded) -> None:
        """Copy a batch there: documents without tokens after its own, and scored places that are nowhere."""
        there, num_tokens = self.there, len(batch.input_ids)
        places = self._everything if batch.targets.places is None else batch.targets.places
        assert there.targets.places is not None
        there.input_ids.copy_(batch.input_ids)
        there.positions.copy_(batch.positions)
        for room, values, rest in (
            (there.bounds, batch.bounds, num_tokens),
            (there.targets.ids, batch.targets.ids, 0),
            (there.targets.places, places, num_tokens),
        ):
            room[: len(values)].copy_(values)
            room[len(values) :].fill_(rest)


@dataclass
class Step:
    """One graph, or what is to become one."""

    batch: Batch
    factor: Tensor
    """Of the loss, float32 scalar."""
    loss: Tensor
    is_computed: bool = False
    """Whether it was computed once, so that nothing has to be compiled while it is captured."""
    gradients: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Of each parameter that has one."""
    graph: Graph | None = None


class CapturedSteps:
    """The steps of one decoder with the adapter it has. `capture` stands in for torch's in tests."""

    def __init__(self, decoder: Decoder, trained: Sequence[Tensor], capture: Capture | None = None) -> None:
        self.problem = ""
        """Why nothing is captured any more; empty where it is."""
        self._decoder = decoder
        self._trained = list(trained)
        self._capture = capture or _Capture(decoder.head.weight.device)
        self._steps: dict[Size, Step | None] = {}
        self._pointers: list[int] = []

    @property
    def num_graphs(self) -> int:
        """That were captured and are kept."""
        return sum(step is not None and step.graph is not None for step in self._steps.values())

    def add_gradients(self, batch: Uploaded, factor: Tensor) -> Tensor | None:
        """Add the gradients of the batch's loss times `factor`; returns the loss, float32 scalar.

        None where the batch is to be computed without a graph: the first of its size, whose kernels may have to be
        compiled, those of rare sizes, and all of them where a problem arose.
        """
        pointers = [parameter.data_ptr() for parameter in self._trained]
        if pointers != self._pointers:
            self._steps.clear()
            self._pointers = pointers
        size = Size.of(batch)
        if self.problem:
            return None
        if size not in self._steps:
            self._see(size)
            return None
        step = self._steps[size]
        if step is None:
            step = self._steps[size] = Step(Batch(size, batch), torch.empty_like(factor), torch.empty_like(factor))
        step.batch.fill(batch)
        step.factor.copy_(factor)
        if step.is_computed:
            graph = step.graph or self._graph_of(step)
            if graph is None:
                return None
            graph.replay()
        else:
            self._compute(step)
            step.is_computed = True
        _add(step.gradients)
        return step.loss.clone()

    def _see(self, size: Size) -> None:
        """Remember that a batch had it, in place of one that came once, where there are too many."""
        once = [size for size, step in self._steps.items() if step is None]
        if len(self._steps) == MOST_KEPT and once:
            del self._steps[once[0]]
        if len(self._steps) < MOST_KEPT:
            self._steps[size] = None

    def _compute(self, step: Step) -> None:
        loss = self._decoder.loss(step.batch.there)
        gradients = torch.autograd.grad(loss * step.factor, self._trained, allow_unused=True)
        pairs = zip(self._trained, gradients, strict=True)
        step.gradients = [(parameter, gradient) for parameter, gradient in pairs if gradient is not None]
        step.loss = loss.detach()

    def _graph_of(self, step: Step) -> Graph | None:
        """Capture it; None where that does not work."""
        try:
            step.graph = self._capture(lambda: self._compute(step))
        except RuntimeError as error:  # whatever CUDA forbids while it captures, and running out of memory
            self.problem = " ".join(str(error).split())[:200] or type(error).__name__
            self._steps.clear()
        return step.graph


def _add(gradients: Sequence[tuple[Tensor, Tensor]]) -> None:
    """To what the parameters have already, in two launches; a graph writes over its own."""
    first: list[tuple[Tensor, Tensor]] = []
    others: list[tuple[Tensor, Tensor]] = []
    for parameter, gradient in gradients:
        there = parameter.grad
        if there is None:
            there = parameter.grad = torch.empty_like(gradient)
            first.append((there, gradient))
        else:
            others.append((there, gradient))
    if first:
        torch._foreach_copy_([there for there, _ in first], [gradient for _, gradient in first])
    if others:
        torch._foreach_add_([there for there, _ in others], [gradient for _, gradient in others])


class _Capture:
    """torch's, with one pool of memory for all graphs, of which one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Callable[[], None]) -> Graph:
        now = torch.cuda.memory_allocated(self._device)
        needed = torch.cuda.max_memory_allocated(self._device) - now
        unused = torch.cuda.memory_reserved(self._device) - now
        if 2 * needed > torch.cuda.mem_get_info(self._device)[0] + unused:
            raise RuntimeError("the card has no room for a second set of activations, which they keep")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.graph(graph, pool=self._pool):
            compute()
        made: Graph = graph
        return made


def can_capture(decoder: Decoder, device: torch.device) -> bool:
    """Whether all that a step of this decoder reads lies on the card."""
    kernels = decoder.kernels
    if not isinstance(kernels, GpuKernels):
        return False
    capability = kernels.capability(device)
    for layer in decoder.layers:
        groups = (layer.query_key_value, layer.attention_out, layer.up, layer.down)
        held = [projection.held for group in groups for projection in group.layers]
        if not all(isinstance(weight, Tensor) for weight in held):
            return False
        if layer.rotary is not None and layer.rotary.long_frequencies is not None:
            return False
        if not takes_varlen(decoder.dtype, layer.heads, 1 << 30, capability):
            return False
    return True
