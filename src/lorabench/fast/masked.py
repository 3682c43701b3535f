"""Adapters of several runs in one pass, over all rows and masked: for GPUs, where the number of launches counts.

The adapters of a layer are one of a larger rank. Each has its own columns of u, which the mask sets to zero in the rows
of other runs and multiplies by the adapter's scaling in its own. Factors of one size are converted together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lorabench.fast.dropout import draw_kept
from lorabench.fast.kernels import Kernels, Product
from lorabench.fast.linear import Lowered, Projection, Projections
from lorabench.fast.rows import Rows, drawn_for

Part = tuple[int, Projection]
"""A run and the layer with its adapter."""
Entry = tuple[tuple[int, int], list[Tensor]]
"""Factors side by side, with the group and its adapted layer, or -1 for the first factors of all its layers."""


@dataclass(frozen=True)
class Masked(Projections):
    """Frozen layers that read the same input, with the adapters of several runs."""

    runs: tuple[Projections, ...]
    rows: Rows
    bank: Bank

    def __post_init__(self) -> None:
        self.bank.groups.append(self)

    @cached_property
    def parts(self) -> list[list[Part]]:
        """Of each layer that a run adapts."""
        found = [
            [(place, layer) for place, layer in enumerate(layers) if layer.a is not None]
            for layers in zip(*(run.layers for run in self.runs), strict=True)
        ]
        return [parts for parts in found if parts]

    @property
    def factors(self) -> list[Tensor]:
        return [
            factor for parts in self.parts for _, layer in parts for factor in (layer.a, layer.b) if factor is not None
        ]

    @cached_property
    def is_adapted(self) -> list[bool]:
        """Whether a run adapts it, of each layer."""
        return [
            any(layer.a is not None for layer in layers)
            for layers in zip(*(run.layers for run in self.runs), strict=True)
        ]

    @property
    def trains_firsts(self) -> bool:
        return any(run.trains_firsts for run in self.runs)

    def _mask(self) -> Tensor:
        """Float32 [T, R]: scaling ÷ share kept in an adapter's own rows, else 0."""
        columns = [
            (place, layer.scaling / (1.0 - layer.dropout))
            for parts in self.parts
            for place, layer in parts
            for _ in range(_rank(layer))
        ]
        return self.rows.mask(tuple(columns))

    def _split(self, tensor: Tensor, dim: int = 1) -> tuple[Tensor, ...]:
        """What lies side by side of the adapted layers, layer by layer."""
        sizes = [sum(_rank(layer) for _, layer in parts) for parts in self.parts]
        pieces: tuple[Tensor, ...] = tensor.split(sizes, dim)
        return pieces

    def _lower(self, inputs: Tensor, kernels: Kernels, training: bool) -> Lowered:
        layers = [layer for parts in self.parts for _, layer in parts]
        firsts, seconds = self.bank.factors(self)
        if training and any(layer.dropout for layer in layers):
            kept = tuple(self._draw(inputs, parts) for parts in self.parts)
            product = inputs.new_empty(len(inputs), len(firsts))
            pieces = zip(kept, self._split(firsts, 0), self._split(product), strict=True)
            kernels.multiply([Product(((inputs * own, a.t()),), out=u) for own, a, u in pieces])
        else:
            kept, (product,) = (), kernels.multiply([Product(((inputs, firsts.t()),))])
        return Lowered(product.mul_(self._mask()), firsts, seconds, kept)

    def _draw(self, inputs: Tensor, parts: Sequence[Part]) -> Tensor:
        """Where dropout keeps the inputs of a layer, bool [T, in]."""
        kept = torch.ones(inputs.shape, dtype=torch.bool, device=inputs.device)
        for place, layer in parts:
            if layer.dropout:
                with drawn_for(place):
                    self.rows.take(kept, place).copy_(draw_kept(self.rows.take(inputs, place), layer.dropout))
        return kept

    def project(self, inputs: Tensor, kernels: Kernels, *, training: bool) -> tuple[list[Tensor], Lowered | None]:
        lowered = self._lower(inputs, kernels, training) if self.parts else None
        pieces = iter(() if lowered is None else zip(self._split(lowered.product), lowered.seconds, strict=True))
        products = []
        for layer, adapted in zip(self.layers, self.is_adapted, strict=True):
            terms = [(inputs, layer.weight)]
            if adapted:
                product, second = next(pieces)
                terms.append((product, second.t()))
            products.append(Product(tuple(terms), layer.bias))
        return kernels.multiply(products), lowered

    def restore(self, tensors: Sequence[Tensor]) -> Lowered:
        return Lowered.of(tensors, len(self.parts))

    def input_gradient(
        self, gradients: Sequence[Tensor], lowered: Lowered | None, kernels: Kernels, *, wanted: bool
    ) -> tuple[Tensor | None, Tensor | None, list[Tensor]]:
        terms = [(dy, layer.weight.t()) for layer, dy in zip(self.layers, gradients, strict=True)]
        if lowered is None:
            return kernels.multiply([Product(tuple(terms))])[0] if wanted else None, None, []
        own = [dy for dy, adapted in zip(gradients, self.is_adapted, strict=True) if adapted]
        d_lowered = torch.empty_like(lowered.product)
        d_pieces = self._split(d_lowered)
        kernels.multiply(
            [Product(((dy, b),), out=du) for dy, b, du in zip(own, lowered.seconds, d_pieces, strict=True)]
        )
        d_lowered.mul_(self._mask())
        d_wide = [torch.empty_like(b, dtype=torch.float32) for b in lowered.seconds]
        pieces = zip(own, self._split(lowered.product), d_wide, strict=True)
        products = [Product(((dy.t(), u),), out=d_b) for dy, u, d_b in pieces]
        if wanted:
            if not lowered.kept:
                terms.append((d_lowered, lowered.firsts))
            products.append(Product(tuple(terms)))
        results = kernels.multiply(products)
        d_seconds = [d_b for parts, wide in zip(self.parts, d_wide, strict=True) for d_b in self._apart(parts, wide)]
        if not wanted:
            return None, d_lowered, d_seconds
        for d_piece, a, kept in zip(d_pieces, self._split(lowered.firsts, 0), lowered.kept or (), strict=False):
            results[-1].addcmul_(torch.mm(d_piece, a), kept)
        return results[-1], d_lowered, d_seconds

    def _apart(self, parts: Sequence[Part], wide: Tensor) -> list[Tensor]:
        """Gradients of second factors that lie side by side [out, R] -> each adapter's [out, r]."""
        ranks = [_rank(layer) for _, layer in parts]
        apart = [wide.new_empty(len(wide), rank) for rank in ranks]
        torch.split_with_sizes_copy(wide, ranks, 1, out=apart)
        return apart

    def first_gradients(
        self, inputs: Tensor | None, d_lowered: Tensor, lowered: Lowered, kernels: Kernels
    ) -> Sequence[Tensor | None]:
        ranks = [_rank(layer) for parts in self.parts for _, layer in parts]
        if inputs is None:
            return [None] * len(ranks)
        d_firsts = torch.empty_like(lowered.firsts, dtype=torch.float32)
        if lowered.kept:
            pieces = zip(self._split(d_lowered), self._split(d_firsts, 0), lowered.kept, strict=True)
            kernels.multiply([Product(((du.t(), inputs * kept),), out=d_a) for du, d_a, kept in pieces])
        else:
            kernels.multiply([Product(((d_lowered.t(), inputs),), out=d_firsts)])
        return list(d_firsts.split(ranks))


class Bank:
    """The factors of all groups of layers in the activations' type: those of one size are converted together."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.groups: list[Masked] = []
        self._dtype = dtype
        self._made: dict[tuple[int, int], Tensor] = {}
        """By the keys of entries."""

    def refresh(self) -> None:
        """Read the factors as they are now."""
        firsts: dict[int, list[Entry]] = defaultdict(list)
        seconds: dict[int, list[Entry]] = defaultdict(list)
        for group in self.groups:
            for place, parts in enumerate(group.parts):
                firsts[len(_first(parts[0]).t())].append(((id(group), -1), [_first(part) for part in parts]))
                seconds[len(_second(parts[0]))].append(((id(group), place), [_second(part) for part in parts]))
        self._made = {}
        for dim, by_size in ((0, firsts), (1, seconds)):
            for entries in by_size.values():
                self._convert(entries, dim)

    def factors(self, group: Masked) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Of a group: first factors [R, in] of all its layers, and second factors [out, R] of each."""
        own = id(group)
        return self._made[own, -1], tuple(self._made[own, place] for place in range(len(group.parts)))

    def _convert(self, entries: Sequence[Entry], dim: int) -> None:
        whole = torch.cat([factor for _, factors in entries for factor in factors], dim).to(self._dtype)
        sizes: dict[tuple[int, int], int] = {}
        for key, factors in entries:  # a group's layers follow one another
            sizes[key] = sizes.get(key, 0) + sum(factor.shape[dim] for factor in factors)
        self._made |= dict(zip(sizes, whole.split(list(sizes.values()), dim), strict=True))


def _first(part: Part) -> Tensor:
    factor = part[1].a
    assert factor is not None
    return factor.detach()


def _second(part: Part) -> Tensor:
    factor = part[1].b
    assert factor is not None
    return factor.detach()


def _rank(layer: Projection) -> int:
    return 0 if layer.a is None else len(layer.a)
