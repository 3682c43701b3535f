"""Axes that one diverged run does not stretch: what is far worse than its base is drawn at the edge of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lorabench.analysis.findings import Candidate, CorpusFindings
from lorabench.core.formatting import number
from lorabench.report.picture import Kind, Panel, Point

FAR = 0.1
"""Share of the base's figure. Worse by more than this, and by more than the best of the corpus is better: far worse."""
_ROOM = 0.1
"""Between the others and the edge, as a share of their range."""


def is_far(figure: float, base: float, best_gain: float) -> bool:
    """Of three figures in bits per byte; `best_gain` is how much the best lies below its base."""
    return figure - base > max(FAR * base, best_gain)


def far_of(corpora: Sequence[CorpusFindings]) -> frozenset[str]:
    """Keys of the candidates that are far worse than their bases."""
    return frozenset(item.key for corpus in corpora for item in _far(corpus.candidates))


def _far(candidates: Sequence[Candidate]) -> list[Candidate]:
    known = [(item, item.base_bits_per_byte, item.gain.estimate) for item in candidates if item.gain is not None]
    most = max((gain for _, _, gain in known), default=0.0)
    return [item for item, base, gain in known if base is not None and is_far(base - gain, base, most)]


def fitted(panel: Panel, axes: str = "y") -> Panel:
    """With its far points at the edge on these axes (`x`, `y` or both), each with its figure, and named in the title.

    The figure is that on the first of the axes. Without others to fit to, the panel stays as it is.
    """
    points = [point for series in panel.series for point in series.points]
    far = [point for point in points if point.is_far]
    others = [point for point in points if not point.is_far]
    if not far or not others:
        return panel
    first = axes[0]
    with_interval = "x" if panel.kind is Kind.ROWS else "y"
    shown = {"x": panel.least_x or (), "y": ()}
    ends = {axis: _ends(others, axis, shown[axis], has_intervals=axis == with_interval) for axis in axes}
    series = tuple(
        replace(one, points=tuple(_at_edge(point, ends, first) if point.is_far else point for point in one.points))
        for one in panel.series
    )
    worst = max((_value(point, first) for point in far), key=abs)
    named = f"{len(far)} far worse than the base, {'up' if worst > 0 else 'down'} to {number(worst, 2)}"
    at_edge = f"{named}, {'is' if len(far) == 1 else 'are'} drawn at the edge"
    return replace(panel, series=series, finding="; ".join(filter(None, (panel.finding, at_edge))))


def _value(point: Point, axis: str) -> float:
    return point.x if axis == "x" else point.y


def _ends(points: Sequence[Point], axis: str, shown: Sequence[float], *, has_intervals: bool) -> tuple[float, float]:
    """Where an axis ends that shows these points, their intervals, what it shows anyway, and some room."""
    values = [*(_value(point, axis) for point in points), *shown]
    if has_intervals:
        values += [end for point in points for end in (point.low, point.high) if end is not None]
    room = _ROOM * ((max(values) - min(values)) or abs(values[0]) or 1.0)
    return min(values) - room, max(values) + room


def _at_edge(point: Point, ends: Mapping[str, tuple[float, float]], first: str) -> Point:
    """Its interval is left out, and its figure stands beside it."""
    text = ", ".join(filter(None, (point.text, number(_value(point, first), 2))))
    x, y = (_within(_value(point, axis), *ends.get(axis, (-math.inf, math.inf))) for axis in "xy")
    return replace(point, x=x, y=y, low=None, high=None, text=text)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
