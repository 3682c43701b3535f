"""Whose rows of a batch are whose, where several runs train in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorabench.fast.dropout import Draws, drawn_by

_DRAWS: ContextVar[Sequence[Draws | None]] = ContextVar("draws of each run")


@dataclass(frozen=True, eq=False)
class Rows:
    """Whose rows of a flat batch are whose: those of run i are [bounds[i], bounds[i + 1])."""

    bounds: tuple[int, ...]
    owners: Tensor
    """int64 [T]."""
    masks: dict[Any, Tensor] = field(default_factory=dict)
    """By columns."""

    @classmethod
    def of(cls, bounds: tuple[int, ...], device: torch.device) -> Rows:
        """On the device."""
        owners = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        return cls(bounds, torch.from_numpy(owners).to(device))

    def take(self, tensor: Tensor, run: int) -> Tensor:
        """A run's rows of a tensor [T, ...]."""
        return tensor[self.bounds[run] : self.bounds[run + 1]]

    def mask(self, columns: tuple[tuple[int, float], ...]) -> Tensor:
        """Of columns, each with its run and a factor: float32 [T, R], the factor in the run's rows, else 0."""
        if columns not in self.masks:
            device = self.owners.device
            runs = torch.tensor([run for run, _ in columns], device=device)
            factors = torch.tensor([factor for _, factor in columns], device=device)
            self.masks[columns] = (self.owners[:, None] == runs) * factors
        return self.masks[columns]


@contextmanager
def runs_drawn_by(draws: Sequence[Draws | None]) -> Iterator[None]:
    """Inside, the dropout of each run is drawn by its own."""
    token = _DRAWS.set(draws)
    try:
        yield
    finally:
        _DRAWS.reset(token)


@contextmanager
def drawn_for(run: int) -> Iterator[None]:
    """Inside, dropout is drawn for this run's rows alone."""
    with drawn_by(_DRAWS.get()[run]):
        yield
