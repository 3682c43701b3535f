"""What quantising costs the bases themselves, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lorabench.analysis.candidates import CorpusGroup
from lorabench.analysis.comparisons import correct
from lorabench.analysis.facts import QuantizedBase
from lorabench.analysis.pairing import Measured
from lorabench.analysis.statistics import Floats, compare_pair

_NOT_QUANTISED = "none"
_ALIKE = ("model", "precision", "context_length")
"""Settings that a base and its quantised form share: scored in another way, it is another figure."""


class _Base(NamedTuple):
    """A base on a corpus, held in one way."""

    shown: Measured
    nll: Floats
    """[1, D]."""
    num_bytes: Floats


def quantized_bases(groups: Sequence[CorpusGroup]) -> tuple[QuantizedBase, ...]:
    """Every quantised base beside the same one as it is, by document on validation; corrected over all of them."""
    pairs = [(group.label, *pair) for group in groups for pair in _pairs(group)]
    differences = [compare_pair(held.nll, whole.nll, held.num_bytes) for _, whole, held in pairs]
    found = []
    for (corpus, whole, held), difference, correction in zip(pairs, differences, correct(differences), strict=True):
        factor = 1.0 if correction is None else correction.factor
        found.append(
            QuantizedBase(
                model=held.shown.shown.model,
                corpus=corpus,
                quantization=str(held.shown.shown.settings["quantization"]),
                bits_per_byte=float(held.nll.sum() / (np.log(2.0) * held.num_bytes.sum())),
                difference=difference.interval(len(held.num_bytes), 1, factor=factor),
                weight_bytes=_weight_bytes(held.shown),
                whole_weight_bytes=_weight_bytes(whole.shown),
            )
        )
    return tuple(found)


def _pairs(group: CorpusGroup) -> list[tuple[_Base, _Base]]:
    """The base as it is, and each way in which it is quantised."""
    bases: dict[tuple[object, ...], dict[str, _Base]] = {}
    for item in group.candidates:
        if item.base_nll is not None and item.num_bytes is not None:
            settings = item.shown.settings
            held = bases.setdefault(tuple(settings[name] for name in _ALIKE), {})
            held.setdefault(str(settings["quantization"]), _Base(item, item.base_nll[:1], item.num_bytes))
    return [
        (held[_NOT_QUANTISED], base)
        for held in bases.values()
        if _NOT_QUANTISED in held
        for name, base in held.items()
        if name != _NOT_QUANTISED
    ]


def _weight_bytes(item: Measured) -> int | None:
    return next((run.speed.base_bytes for run in item.runs if run.speed and run.speed.base_bytes), None)
