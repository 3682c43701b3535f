"""Adapters of several runs in one pass, each computed over its own rows as it is alone: for processors.

The base's products are over all rows. The products u of all adapters lie side by side, zero where a row is another
run's, so that the second factors of a layer are one more term of its product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorabench.fast.kernels import Kernels, Product
from lorabench.fast.linear import Lowered, Projections, first_gradients, lower, split
from lorabench.fast.rows import Rows, drawn_for


@dataclass(frozen=True)
class SlicedLowered:
    """What `Lowered` is, of each run that adapts one of the layers."""

    runs: tuple[Lowered | None, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, to be saved by autograd."""
        return tuple(tensor for lowered in self.runs if lowered is not None for tensor in lowered.tensors)


@dataclass(frozen=True)
class Sliced(Projections):
    """Frozen layers that read the same input, with the adapters of several runs: each is computed as it is alone."""

    runs: tuple[Projections, ...]
    rows: Rows

    @property
    def factors(self) -> list[Tensor]:
        return [factor for run in self.runs for factor in run.factors]

    @property
    def trains_firsts(self) -> bool:
        return any(run.trains_firsts for run in self.runs)

    def project(self, inputs: Tensor, kernels: Kernels, *, training: bool) -> tuple[list[Tensor], Any]:
        lowered = []
        for place, run in enumerate(self.runs):
            with drawn_for(place):
                own = self.rows.take(inputs, place)
                lowered.append(lower(own, run.adapted, kernels, training) if run.adapted else None)
        parts: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in self.layers]
        for place, (run, made) in enumerate(zip(self.runs, lowered, strict=True)):
            if made is not None:
                pieces = zip(split(made.product, run.adapted), made.seconds, strict=True)
                for index in (index for index, layer in enumerate(run.layers) if layer.a is not None):
                    parts[index].append((place, *next(pieces)))
        products = []
        for layer, own_parts in zip(self.layers, parts, strict=True):
            terms = [(inputs, layer.weight)]
            if own_parts:
                beside = self._beside(len(inputs), [(place, product) for place, product, _ in own_parts])
                terms.append((beside, torch.cat([second for _, _, second in own_parts], 1).t()))
            products.append(Product(tuple(terms), layer.bias))
        return kernels.multiply(products), SlicedLowered(tuple(lowered)) if any(lowered) else None

    def _beside(self, num_rows: int, parts: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Products [rows of a run, r] in columns of their own, zero elsewhere: [T, R]."""
        first = parts[0][1]
        wide, column = first.new_zeros(num_rows, sum(part.shape[1] for _, part in parts)), 0
        for run, part in parts:
            self.rows.take(wide, run)[:, column : column + part.shape[1]] = part
            column += part.shape[1]
        return wide

    def restore(self, tensors: Sequence[Tensor]) -> SlicedLowered:
        runs: list[Lowered | None] = []
        for run in self.runs:
            count, drops = len(run.adapted), any(layer.dropout for layer in run.adapted)
            size = 2 + count * (1 + drops) if count else 0
            runs.append(Lowered.of(tensors[:size], count) if count else None)
            tensors = tensors[size:]
        return SlicedLowered(tuple(runs))

    def input_gradient(
        self, gradients: Sequence[Tensor], lowered: SlicedLowered | None, kernels: Kernels, *, wanted: bool
    ) -> tuple[Tensor | None, list[Tensor | None] | None, list[Tensor]]:
        terms = [(dy, layer.weight.t()) for layer, dy in zip(self.layers, gradients, strict=True)]
        if lowered is None:
            return kernels.multiply([Product(tuple(terms))])[0] if wanted else None, None, []
        d_products, products, d_lowered, d_seconds = [], [], list[Tensor | None](), list[Tensor]()
        for place, (run, made) in enumerate(zip(self.runs, lowered.runs, strict=True)):
            du_all = None if made is None else torch.empty_like(made.product)
            d_lowered.append(du_all)
            if made is None or du_all is None:
                continue
            pairs = zip(run.layers, gradients, strict=True)
            own = [self.rows.take(dy, place) for layer, dy in pairs if layer.a is not None]
            pieces = zip(own, made.seconds, split(du_all, run.adapted), strict=True)
            d_products += [Product(((dy, b),), out=du) for dy, b, du in pieces]
            d_bs = [torch.empty_like(b, dtype=torch.float32) for b in made.seconds]
            pieces = zip(own, split(made.product, run.adapted), d_bs, strict=True)
            products += [Product(((dy.t(), u),), out=d_b) for dy, u, d_b in pieces]
            d_seconds += d_bs
        kernels.multiply(d_products)
        if wanted:
            plain = [
                (place, made.firsts, du)
                for place, (made, du) in enumerate(zip(lowered.runs, d_lowered, strict=True))
                if made is not None and du is not None and not made.kept
            ]
            if plain:
                beside = self._beside(len(gradients[0]), [(place, du) for place, _, du in plain])
                terms.append((beside, torch.cat([firsts for _, firsts, _ in plain])))
            products.append(Product(tuple(terms)))
        results = kernels.multiply(products)
        scalings = [layer.scaling for run in self.runs for layer in run.adapted]
        for scaling, d_b in zip(scalings, d_seconds, strict=True):
            d_b.mul_(scaling)
        if wanted:
            self._add_through_dropout(results[-1], lowered, d_lowered)
        return results[-1] if wanted else None, d_lowered, d_seconds

    def _add_through_dropout(
        self, d_inputs: Tensor, lowered: SlicedLowered, d_lowered: Sequence[Tensor | None]
    ) -> None:
        for place, (run, made, du) in enumerate(zip(self.runs, lowered.runs, d_lowered, strict=True)):
            if made is None or du is None or not made.kept:
                continue
            own, layers = self.rows.take(d_inputs, place), run.adapted
            pieces = zip(layers, split(du, layers), split(made.firsts, layers, 0), made.kept, strict=True)
            for layer, d_piece, a, kept in pieces:
                own.addcmul_(torch.mm(d_piece, a), kept, value=1.0 / (1.0 - layer.dropout))

    def first_gradients(
        self, inputs: Tensor | None, d_lowered: Sequence[Tensor | None], lowered: SlicedLowered, kernels: Kernels
    ) -> Sequence[Tensor | None]:
        found: list[Tensor | None] = []
        for place, (run, made, du) in enumerate(zip(self.runs, lowered.runs, d_lowered, strict=True)):
            if made is not None and du is not None:
                own = None if inputs is None else self.rows.take(inputs, place)
                found += first_gradients(own, du, run, made, kernels)
        return found
