"""Dropout that is drawn row by row: what is dropped of a row does not depend on the rows that are computed beside it.

So the masks of a step are the same whatever the micro-batch, and on however many devices the rows lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lorabench.tokens.packing import PackedBatch


def row_seeds(seed: int, step: int, num_rows: int) -> list[int]:
    """A seed for each row of a step's batch, which depends on (seed, step, row) alone."""
    seeds: list[int] = np.random.SeedSequence([seed, step]).generate_state(num_rows, np.uint64).tolist()
    return seeds


@dataclass(frozen=True)
class Draws:
    """Random numbers of tokens laid end to end: each span has its own, from `starts[i]` to `starts[i + 1]`."""

    starts: Sequence[int]
    generators: Sequence[torch.Generator | None]

    @classmethod
    def of_rows(cls, batch: PackedBatch, seeds: Sequence[int], device: torch.device) -> Draws:
        """For a batch that is computed in one pass."""
        return cls(batch.row_starts.tolist(), [_generator(seed, device) for seed in seeds])

    @classmethod
    def of_segments(cls, batch: PackedBatch, seeds: Sequence[int], device: torch.device) -> list[Draws]:
        """For each segment of a batch, where each is computed by itself: from its row's seed and its place there."""
        lengths = np.diff(batch.segment_starts).tolist()
        rows = np.searchsorted(batch.row_starts, batch.segment_starts[:-1], side="right") - 1
        places = np.arange(len(rows)) - np.searchsorted(rows, rows)
        mixed = [
            np.random.SeedSequence([seeds[row], place]).generate_state(1, np.uint64)
            for row, place in zip(rows.tolist(), places.tolist(), strict=True)
        ]
        return [
            cls((0, length), [_generator(int(seed[0]), device)]) for length, seed in zip(lengths, mixed, strict=True)
        ]

    @classmethod
    def side_by_side(cls, segments: Sequence[Draws], width: int) -> Draws:
        """For segments [B] in one pass, each padded behind to `width` tokens."""
        spans = [
            (row * width + place, generator)
            for row, draws in enumerate(segments)
            for place, generator in zip(draws.starts, (*draws.generators, None), strict=True)
        ]
        return cls([*(start for start, _ in spans), len(segments) * width], [generator for _, generator in spans])

    def copy(self) -> Draws:
        """One that draws what this one is going to draw."""
        return Draws(self.starts, [None if one is None else _copied(one) for one in self.generators])

    def kept(self, inputs: Tensor, probability: float) -> Tensor:
        """False with the given probability, bool, in the shape of inputs [..., T, in]."""
        flat = torch.ones(inputs.shape, dtype=torch.bool, device=inputs.device)
        tokens = flat.view(-1, inputs.shape[-1])
        for start, end, generator in zip(self.starts[:-1], self.starts[1:], self.generators, strict=True):
            if generator is not None:
                tokens[start:end].bernoulli_(1.0 - probability, generator=generator)
        return flat


_CURRENT: ContextVar[Draws | None] = ContextVar("draws", default=None)


@contextmanager
def drawn_by(draws: Draws | None) -> Iterator[None]:
    """Inside, dropout is drawn by `draws`; by torch's own random state where that is None."""
    token = _CURRENT.set(draws)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_draws() -> Draws | None:
    """By what dropout is drawn now; None: by torch's own random state."""
    return _CURRENT.get()


def draw_kept(inputs: Tensor, probability: float) -> Tensor:
    """Where dropout keeps the inputs [T, in], bool. Torch's own random state is drawn as torch's dropout draws it."""
    draws = _CURRENT.get()
    if draws is None:
        return torch.empty_like(inputs).bernoulli_(1.0 - probability).bool()
    return draws.kept(inputs, probability)


@contextmanager
def dropping(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, the dropout among the modules is on, and drawn as `drawn_by` says."""
    for module in modules:
        module.train()
        if isinstance(module, nn.Dropout):
            module.forward = partial(_drop, module.p)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in modules:
            module.eval()
            vars(module).pop("forward", None)


def _drop(probability: float, inputs: Tensor) -> Tensor:
    if _CURRENT.get() is None:
        return functional.dropout(inputs, probability)
    return inputs * draw_kept(inputs, probability).to(inputs.dtype).div_(1.0 - probability)


def _generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def _copied(generator: torch.Generator) -> torch.Generator:
    return torch.Generator(generator.device).set_state(generator.get_state())
