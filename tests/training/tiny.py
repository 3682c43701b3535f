"""A real but tiny model behind the engine's interface: the next token from a frozen table plus a low-rank adapter."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lorabench.fast.dropout import Draws
from lorabench.methods.adapter import ParameterGroup
from lorabench.tokens.packing import IGNORED, PackedBatch, Row
from lorabench.training.loop import TrainingText

VOCABULARY = 50


class TinyAdapter:
    def __init__(self, seed: int = 0, rank: int = 4) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.down = nn.Parameter(torch.randn(VOCABULARY, rank, generator=generator))
        self.up = nn.Parameter(torch.zeros(rank, VOCABULARY))

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield "down", self.down
        yield "up", self.up

    def optimizer_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([self.down, self.up])]

    def set_num_steps(self, num_steps: int) -> None:
        pass

    def before_step(self, step: int) -> None:
        pass

    def begin(self, rows: Iterator[Row]) -> None:
        pass

    def after_step(self, step: int) -> None:
        pass

    def extra_state(self) -> dict[str, Tensor]:
        return {}


class GroupedAdapter(TinyAdapter):
    """Its groups have rates and decays of their own, in another order than its parameters; a hook follows each step."""

    def optimizer_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([self.up], rate=3.0, weight_decay=0.2), ParameterGroup([self.down])]

    def after_step(self, step: int) -> None:
        self.up.data.mul_(1.0 - 0.5 / (step + 1))


class TinyBase:
    device = torch.device("cpu")
    precision = "fp32"

    def __init__(self, adapter: TinyAdapter, dropout: float = 0.0) -> None:
        self.table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(1))
        self.adapter = adapter
        self.dropout = dropout

    def _nll(self, batch: PackedBatch, seeds: Sequence[int] | None = None) -> Tensor:
        ids, targets = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.targets)
        hidden = self.adapter.down[ids]
        if seeds is not None and self.dropout:
            kept = Draws.of_rows(batch, seeds, self.device).kept(hidden, self.dropout)
            hidden = hidden * kept / (1.0 - self.dropout)
        logits = self.table[ids] + hidden @ self.adapter.up
        return functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")

    def send(self, batch: PackedBatch) -> PackedBatch:
        return batch

    def loss(self, batch: PackedBatch, row_seeds: Sequence[int] | None = None) -> Tensor:
        return self._nll(batch, row_seeds).sum()

    def add_gradients(
        self, batch: PackedBatch, row_seeds: Sequence[int], num_scored: int, scaler: torch.amp.GradScaler
    ) -> Tensor:
        loss = self.loss(batch, row_seeds)
        torch.autograd.backward(scaler.scale(loss / num_scored))
        return loss.detach()

    def clock(self) -> float:
        return time.perf_counter()

    def token_nll(self, batch: PackedBatch) -> Tensor:
        with torch.no_grad():
            return self._nll(batch)

    def synchronize(self) -> None:
        pass


def tiny_text(num_documents: int = 40) -> TrainingText:
    """Documents in which each token follows from the one before it, mostly."""
    generator = np.random.default_rng(0)
    documents = []
    for _ in range(num_documents):
        tokens = [int(generator.integers(2, VOCABULARY))]
        for _ in range(int(generator.integers(3, 30))):
            follows = (tokens[-1] * 7 + 3) % (VOCABULARY - 2) + 2
            tokens.append(follows if generator.random() < 0.9 else int(generator.integers(2, VOCABULARY)))
        documents.append(np.array(tokens, dtype=np.int32))
    return TrainingText(documents, prefix=1)
