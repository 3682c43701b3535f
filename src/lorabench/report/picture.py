"""What the figures show, apart from how they are drawn: the page draws these with plotly, the files with matplotlib.

Positions are numbers and names stand beside them as tick texts, so that no name is ever read as anything but a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lorabench.analysis.findings import Findings
from lorabench.analysis.statistics import Interval

BITS_TITLE = "validation bits per byte"
MAX_NAME = 26
"""Characters of a name beside an axis."""
MAX_TEXTS = 12
"""Points of a panel that have their texts beside them; of more, the texts are shown where the pointer rests."""


class Kind(StrEnum):
    """How a panel's series are drawn."""

    LINES = "lines"
    POINTS = "points"
    BARS = "bars"
    ROWS = "rows"
    """Points beside names that stand one below the other."""


@dataclass(frozen=True)
class Point:
    """A figure with its interval, and what is said about it where the pointer rests."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    lines: tuple[str, ...] = ()
    text: str = ""
    """Beside the point, where the panel has room for all."""
    is_far: bool = False
    """Far worse than its base: marked, and drawn at the edge of the others (`report.far`)."""


@dataclass(frozen=True)
class Series:
    """Points that belong together."""

    name: str
    colour: int
    """Place in the palette; the same model has the same place in every figure."""
    points: tuple[Point, ...]
    is_front: bool = False
    """Drawn as the steps of a Pareto front, without points."""
    is_dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One picture with axes."""

    label: str
    sentence: str
    kind: Kind
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    is_log_x: bool = False
    is_log_y: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    """Positions and texts on the axis of names: x, or y for rows. Empty: numbers of the axis's own choosing."""
    finding: str = ""
    """What it shows, in a sentence without its stop: its title."""
    least_x: tuple[float, float] | None = None
    """The axis of x shows at least this range, so that small differences look small."""

    most_y: float | None = None
    """The axis of y ends there, whatever lies above."""

    @property
    def has_texts(self) -> bool:
        """Whether the points' texts have room."""
        return sum(len(series.points) for series in self.series if not series.is_front) <= MAX_TEXTS

    @property
    def has_far_texts(self) -> bool:
        """Whether what is far has its figure beside it: on lines the far points of several would cover one another."""
        num_far = sum(point.is_far for series in self.series for point in series.points)
        return num_far == 1 or (num_far > 1 and self.kind is not Kind.LINES)


@dataclass(frozen=True)
class Matrix:
    """A table of figures in colours around zero: lower is better."""

    label: str
    sentence: str
    x_title: str
    y_title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    lines: tuple[tuple[tuple[str, ...], ...], ...]
    finding: str = ""
    """What it shows, in a sentence without its stop: its title."""


@dataclass(frozen=True)
class Picture:
    """A figure: panels to switch between (on the page) or side by side (in a file), and its figures as a table."""

    name: str
    title: str
    panels: tuple[Panel | Matrix, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def interval_point(x: float, interval: Interval, *lines: str, is_far: bool = False) -> Point:
    """A figure with its interval."""
    return Point(x, interval.estimate, interval.low, interval.high, lines, is_far=is_far)


def colours_of(findings: Findings) -> dict[str, int]:
    """The place in the palette of each model."""
    return {model.name: index for index, model in enumerate(findings.overview.models)}
