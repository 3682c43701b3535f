"""How points of configurations are told apart in figures: the colour by what varied first, the rest in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorabench.analysis.candidates import named_setting, varied_axes
from lorabench.analysis.findings import Candidate, Setting
from lorabench.report.picture import Point, Series

_FIRST = ("model", "method", "rank")
"""Colours show the first of these that varied; where none did, whatever did."""


@dataclass(frozen=True)
class Mark:
    """Of one configuration."""

    series: str
    """Those of one name have one colour."""
    colour: int
    text: str
    """What else varied."""

    @property
    def whole(self) -> str:
        """All that varied."""
        return ", ".join(filter(None, (self.series, self.text)))


def marks_of(candidates: Sequence[Candidate], colours: Mapping[str, int]) -> dict[str, Mark]:
    """By a candidate's key; `colours` are those of the models."""
    varied = varied_axes(item.settings for item in candidates)
    main = next((axis for axis in (*_FIRST, *varied) if axis in varied), "model")
    values = sorted({item.settings[main] for item in candidates}, key=_order)
    marks = {}
    for item in candidates:
        value = item.settings[main]
        rest = [
            named_setting(axis, item.settings[axis])
            for axis in varied
            if axis != main and item.settings[axis] is not None
        ]
        colour = colours.get(item.model, 0) if main == "model" else values.index(value)
        marks[item.key] = Mark(named_setting(main, value), colour, ", ".join(rest))
    return marks


def _order(value: Setting) -> tuple[bool, str | int | float]:
    """Numbers by size, then names."""
    return isinstance(value, str), value or 0


def series_of(points: Sequence[tuple[Mark, Point]]) -> tuple[Series, ...]:
    """Points of one name together, in the order of their colours."""
    by_name: dict[tuple[int, str], list[Point]] = {}
    for mark, point in points:
        by_name.setdefault((mark.colour, mark.series), []).append(point)
    return tuple(Series(name, colour, tuple(found)) for (colour, name), found in sorted(by_name.items()))
