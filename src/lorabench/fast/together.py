"""Several runs' decoders over one base as one: a batch holds rows of each, and each run has a loss of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from lorabench.fast.dropout import Draws
from lorabench.fast.forward import Decoder, Layer
from lorabench.fast.head import head_losses
from lorabench.fast.known import NotFast
from lorabench.fast.linear import Projection, Projections, Scaled
from lorabench.fast.masked import Bank, Masked
from lorabench.fast.rows import Rows, runs_drawn_by
from lorabench.fast.sliced import Sliced
from lorabench.tokens.packing import PackedBatch, lay_end_to_end

MOST_KEPT = 4
"""Joined decoders, with their masks."""
_SHARED = ("query_key_value", "attention_out", "up", "down")


class SharedPass:
    """Forward passes of several runs over the base that they share, in one. Raises NotFast where they cannot be."""

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        for layers in zip(*(decoder.layers for decoder in decoders), strict=True):
            for name in _SHARED:
                _require_shared([getattr(layer, name) for layer in layers])
        self._decoders = tuple(decoders)
        self._joined: dict[tuple[int, ...], tuple[Decoder, Rows, Bank]] = {}
        """By the rows' bounds, which are those of full rows nearly always."""

    def losses(self, batches: Sequence[PackedBatch], draws: Sequence[Draws | None] | None = None) -> Tensor:
        """Nats of each run's batch, summed over its scored targets: float32 [N], differentiable in the adapters.

        Dropout of each run is drawn by its own `draws` [N].
        """
        bounds = (0, *itertools.accumulate(len(batch.input_ids) for batch in batches))
        if bounds not in self._joined:
            if len(self._joined) >= MOST_KEPT:  # conversations fill rows unevenly
                self._joined.clear()
            self._joined[bounds] = self._join(bounds)
        decoder, rows, bank = self._joined[bounds]
        bank.refresh()
        there = decoder.upload(lay_end_to_end(batches))
        scored = (0, *itertools.accumulate(batch.num_scored for batch in batches))
        with runs_drawn_by(draws or [None] * len(batches)):
            hidden = decoder.hidden(there, training=True)
        return head_losses(hidden, decoder.head, there.targets, decoder.kernels, scored, rows.owners)

    def _join(self, bounds: tuple[int, ...]) -> tuple[Decoder, Rows, Bank]:
        first = self._decoders[0]
        rows = Rows.of(bounds, first.head.weight.device)
        bank, saves_launches = Bank(first.dtype), first.kernels.saves_launches

        def joined(layers: Sequence[Layer]) -> Layer:
            parts: dict[str, Any] = {}
            for name in _SHARED:
                runs: tuple[Projections, ...] = tuple(getattr(layer, name) for layer in layers)
                frozen = tuple(Projection(layer.held, layer.bias) for layer in runs[0].layers)
                parts[name] = Masked(frozen, runs, rows, bank) if saves_launches else Sliced(frozen, runs, rows)
            return replace(layers[0], **parts)

        layers = tuple(map(joined, zip(*(decoder.layers for decoder in self._decoders), strict=True)))
        return replace(first, layers=layers), rows, bank


def _require_shared(runs: Sequence[Projections]) -> None:
    """The same frozen layers, with nothing but LoRA's two factors on them."""
    for layers in zip(*(run.layers for run in runs), strict=True):
        if any(layer.magnitude is not None or isinstance(layer.second, Scaled) for layer in layers):
            raise NotFast("DoRA or VeRA beside other runs is not covered by the fast path")
        places = {layer.held.data_ptr() if isinstance(layer.held, Tensor) else None for layer in layers}
        if len(places) > 1 or None in places:
            raise NotFast("a base that the runs do not share, or of four bits, is not covered by the fast path")
