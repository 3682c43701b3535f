"""Which configurations enter a search: all combinations of lists, some of them, or values drawn from ranges.

What is drawn first stays first however many are drawn, so that a search with a larger budget begins with the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from lorabench.experiment.axes import Range, points

Axes = Mapping[str, list[Any]]
Point = dict[str, Any]


def range_keys(axes: Axes) -> list[str]:
    """The axes of which values are drawn."""
    return [key for key, axis in axes.items() if any(isinstance(value, Range) for value in axis)]


def drawn_or_all(entries: Sequence[tuple[Axes, Axes]], count: int | None) -> list[tuple[Point, Point]]:
    """`count` points of pairs of axes, or every one; where values are drawn the entries take turns."""
    if any(range_keys(axes) for pair in entries for axes in pair):
        turns = (divmod(number, len(entries)) for number in range(count or 1))
        return [_drawn(*entries[place], number) for number, place in turns]
    every = [
        (first, second) for adapter, training in entries for second in points(training) for first in points(adapter)
    ]
    if count is None or count >= len(every):
        return every
    places = list(range(len(every)))
    random.Random(0).shuffle(places)
    return [every[place] for place in places[:count]]


def _drawn(adapter: Axes, training: Axes, number: int) -> tuple[Point, Point]:
    """The point of that number of an additive sequence, which spreads evenly however many are drawn (Roberts 2018)."""
    varied = [axis for section in (adapter, training) for axis in section.values() if _is_varied(axis)]
    base = _base(len(varied))
    steps = iter([base ** -(place + 1) for place in range(len(varied))])

    def value(axis: list[Any]) -> Any:
        if not _is_varied(axis):
            return axis[0]
        share = (0.5 + (number + 1) * next(steps)) % 1.0
        place, within = divmod(share * len(axis), 1.0)
        chosen = axis[int(place)]
        return chosen.at(within) if isinstance(chosen, Range) else chosen

    of_adapter = {name: value(axis) for name, axis in adapter.items()}
    return of_adapter, {name: value(axis) for name, axis in training.items()}


def _is_varied(axis: list[Any]) -> bool:
    return len(axis) > 1 or isinstance(axis[0], Range)


def _base(dimensions: int) -> float:
    """The root of x^(d + 1) = x + 1: of one dimension the golden ratio."""
    found = 1.5
    for _ in range(64):
        found = (1.0 + found) ** (1.0 / (dimensions + 1))
    return found
