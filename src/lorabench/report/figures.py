"""The figures as files, for papers and for the summary: `figures/*.svg` and `*.png`, drawn with matplotlib.

The same findings give the same bytes. Text stays text in the SVG, and nothing in it is read as mathematics or markup.
"""

from __future__ import annotations

import contextlib
import io
import os
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorabench.core.formatting import shorten
from lorabench.core.storage import set_aside, write_atomically
from lorabench.report.picture import Kind, Matrix, Panel, Picture, Series

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 12
"""In one file; a figure with more goes on in `<name>-2`, `<name>-3`, …"""
COLOURS = ("#2f6fdb", "#d06a00", "#0b8577", "#b0307c", "#6f7f00", "#6a48cf", "#8c5a2b", "#5f6b7a")
_MARKERS = ("o", "s", "D", "^", "P", "*", "v", "p")
_GREY = "#59636e"
_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b8bfc7",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lorabench",
    "savefig.dpi": 150,
    "figure.max_open_warning": 0,
}


def write_figures(pictures: Sequence[Picture], results: Path) -> list[Path]:
    """Draw them in `results`/figures; those of an earlier build that are no longer true are removed.

    Raises DiskError where one cannot be written.
    """
    folder = results / "figures"
    if os.path.lexists(folder) and not folder.is_dir():
        set_aside(folder)
    written = []
    with _drawing():
        for picture in pictures:
            for number, start in enumerate(range(0, len(picture.panels), MAX_PANELS), 1):
                name = picture.name if number == 1 else f"{picture.name}-{number}"
                figure = draw(picture, picture.panels[start : start + MAX_PANELS])
                for form, metadata in (("svg", {"Date": None, "Creator": "lorabench"}), ("png", {"Software": None})):
                    content = io.BytesIO()
                    figure.savefig(content, format=form, metadata=metadata)
                    written.append(folder / f"{name}.{form}")
                    write_atomically(written[-1], content.getvalue())
    for path in folder.glob("*"):
        if path.suffix in {".svg", ".png"} and path not in written and path.is_file():
            path.unlink(missing_ok=True)
    return written


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """One style whatever the user's own; characters that the font lacks are drawn as boxes, without a warning each."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def draw(picture: Picture, panels: Sequence[Panel | Matrix]) -> Figure:
    """A figure of several panels side by side, one legend above them."""
    from matplotlib.figure import Figure

    num_columns = 2 if len(panels) == 4 else min(3, len(panels))
    num_rows = -(-len(panels) // num_columns)
    has_one = len(panels) == 1
    width, height = (5.6, 3.0) if has_one else (3.3, 2.5)
    height = max(height, *(0.9 + 0.15 * _num_rows(panel) for panel in panels))
    figure = Figure()
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for panel, area in zip(panels, axes, strict=False):
        area.set_title(_title(panel, has_one=has_one))
        if isinstance(panel, Matrix):
            _draw_matrix(area, panel)
        else:
            _draw_panel(area, panel)
    for area in axes[len(panels) :]:
        area.set_axis_off()
    series = [series for panel in panels if isinstance(panel, Panel) for series in panel.series]
    legend_inches = _draw_legend(figure, series, width * num_columns)
    title_inches = 0.15 * max(_title(panel, has_one=has_one).count("\n") for panel in panels)
    figure.set_size_inches(width * num_columns, (height + title_inches) * num_rows + legend_inches)
    _leave_room(figure, panels, (num_rows, num_columns), legend_inches, title_inches)
    return figure


def _title(panel: Panel | Matrix, *, has_one: bool) -> str:
    """What it shows; of several, under its name."""
    width = 40 if not has_one else 56 if _num_rows(panel) else 76
    finding = textwrap.wrap(shorten(panel.finding, 240), width)
    return "\n".join([*([] if has_one else [shorten(panel.label, 44)]), *finding])


def _leave_room(
    figure: Figure,
    panels: Sequence[Panel | Matrix],
    grid: tuple[int, int],
    top_inches: float,
    title_inches: float,
) -> None:
    """Margins of a fixed size for titles and names: matplotlib's own layout takes as long as all the drawing."""
    width, height = figure.get_size_inches()
    has_rows = any(_num_rows(panel) for panel in panels)
    is_turned = any(isinstance(panel, Matrix) or _has_long_ticks(panel) for panel in panels)
    left, right, top, bottom = (1.75 if has_rows else 0.75), 0.12, 0.3 + title_inches, (1.0 if is_turned else 0.5)
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - (top_inches + top) / height,
        wspace=(left + right) / (width / grid[1] - left - right),
        hspace=(bottom + top) / ((height - top_inches) / grid[0] - bottom - top),
    )


def _draw_legend(figure: Figure, series: Sequence[Series], width_inches: float) -> float:
    """Each name once, in the order in which they come; none where there is only one. Returns its height in inches."""
    named: dict[str, Artist] = {}
    for area in figure.axes:
        handles, names = area.get_legend_handles_labels()
        named |= dict(zip(names, handles, strict=True))
    shown = [name for name in dict.fromkeys(_legend_name(item) for item in series) if name in named]
    if len(shown) < 2:
        return 0.0
    inches_each = 0.6 + 0.075 * max(map(len, shown))
    num_columns = max(1, min(len(shown), int(width_inches / inches_each)))
    handles = [named[name] for name in shown]
    figure.legend(handles=handles, labels=shown, loc="upper left", ncols=num_columns)
    return 0.1 + 0.17 * -(-len(shown) // num_columns)


def _draw_panel(area: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    for place, series in enumerate(panel.series):
        if panel.kind is Kind.BARS:
            _draw_bars(area, series, place, len(panel.series))
        else:
            _draw_series(area, series, panel.kind)
    area.set_xlabel(panel.x_title)
    area.set_ylabel(panel.y_title)
    if panel.is_log_x:
        area.set_xscale("log")
        area.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        area.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,g}"))
        area.minorticks_off()
    elif panel.least_x is not None:
        low, high = area.get_xlim()
        area.set_xlim(min(low, panel.least_x[0]), max(high, panel.least_x[1]))
    if panel.is_log_y:
        area.set_yscale("log")
    if panel.most_y is not None:
        area.set_ylim(top=panel.most_y)
    if panel.kind is Kind.POINTS and panel.has_texts:
        _draw_texts(area, panel)
    _draw_far(area, panel)
    positions, texts = [position for position, _ in panel.ticks], [text for _, text in panel.ticks]
    if panel.ticks and panel.kind is Kind.ROWS:
        area.set_yticks(positions, texts)
        area.set_ylim(len(texts) - 0.5, -0.5)
    elif panel.ticks:
        is_long = _has_long_ticks(panel)
        texts = [shorten(text, 16) for text in texts]
        area.set_xticks(positions, texts, rotation=25 if is_long else 0, ha="right" if is_long else "center")


def _num_rows(panel: Panel | Matrix) -> int:
    """Names that stand one below the other."""
    if isinstance(panel, Matrix):
        return len(panel.rows)
    return len(panel.ticks) if panel.kind is Kind.ROWS else 0


def _draw_texts(area: Axes, panel: Panel) -> None:
    """Beside the points, in turn above and below from left to right."""
    points = sorted((point.x, point.y, point.text) for series in panel.series for point in series.points)
    for place, (x, y, text) in enumerate(points):
        offset = (0, 5) if place % 2 == 0 else (0, -10)
        area.annotate(text, (x, y), offset, textcoords="offset points", fontsize=6, color=_GREY, ha="center")


def _draw_far(area: Axes, panel: Panel) -> None:
    """A cross on what stands at the edge, and its figure where no texts stand beside the points."""
    for point in [point for series in panel.series for point in series.points if point.is_far]:
        area.plot(point.x, point.y, marker="x", markersize=7, markeredgewidth=1.6, color=_GREY)
        if panel.has_far_texts and not (panel.kind is Kind.POINTS and panel.has_texts):
            offset = (7, -2) if panel.kind is Kind.ROWS else (0, -11)
            area.annotate(point.text, (point.x, point.y), offset, textcoords="offset points", fontsize=6, color=_GREY)


def _has_long_ticks(panel: Panel) -> bool:
    """Whether the names below the panel have to be turned to find room."""
    return panel.kind is not Kind.ROWS and sum(len(text) for _, text in panel.ticks) > 40


def _draw_series(area: Axes, series: Series, kind: Kind) -> None:
    colour = _GREY if series.colour < 0 else COLOURS[series.colour % len(COLOURS)]
    x, y = [point.x for point in series.points], [point.y for point in series.points]
    name = _legend_name(series)
    if series.is_front:
        area.step(x, y, where="post", color=colour, linewidth=1, label=name)
        return
    centres = x if kind is Kind.ROWS else y
    errors = _errors(series, centres)
    area.errorbar(
        x,
        y,
        xerr=errors if kind is Kind.ROWS else None,
        yerr=errors if kind is not Kind.ROWS else None,
        label=None if kind is Kind.ROWS else name,
        color=colour,
        linestyle="none" if kind in {Kind.POINTS, Kind.ROWS} else "--" if series.is_dashed else "-",
        marker="" if len(x) > 24 and kind is Kind.LINES else _marker(series.colour),
        markersize=4,
        linewidth=1.3,
        elinewidth=0.9,
        capsize=2,
    )


def _marker(colour: int) -> str:
    """Another one when the colours begin anew, so that no two series look alike before all pairs are used up."""
    return _MARKERS[(colour + colour // len(COLOURS)) % len(_MARKERS)]


def _draw_bars(area: Axes, series: Series, place: int, num_series: int) -> None:
    width = 0.8 / max(3, num_series)
    shift = (place - (num_series - 1) / 2) * width
    x, y = [point.x + shift for point in series.points], [point.y for point in series.points]
    colour = COLOURS[series.colour % len(COLOURS)]
    errors = _errors(series, y)
    area.bar(x, y, width, yerr=errors, label=_legend_name(series), color=colour, ecolor=_GREY, capsize=2, linewidth=0)


def _legend_name(series: Series) -> str:
    """matplotlib leaves names that begin with an underscore out of its legends."""
    name = shorten(series.name, 70)
    return f"\u200b{name}" if name.startswith("_") else name


def _errors(series: Series, centres: Sequence[float]) -> list[list[float]] | None:
    """Distances down and up; none where a series has no interval at all."""
    pairs = list(zip(series.points, centres, strict=True))
    if all(point.low is None or point.high is None for point, _ in pairs):
        return None
    down = [0.0 if point.low is None else max(0.0, centre - point.low) for point, centre in pairs]
    up = [0.0 if point.high is None else max(0.0, point.high - centre) for point, centre in pairs]
    return [down, up]


def _draw_matrix(area: Axes, matrix: Matrix) -> None:
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("around zero", ["#7cc9b8", "#f1f3f5", "#f09d7c"])
    values = np.ma.masked_invalid([[np.nan if value is None else value for value in line] for line in matrix.values])
    limit = float(np.abs(values).max()) if values.count() else 1.0
    area.pcolormesh(values, cmap=colours, vmin=-(limit or 1.0), vmax=limit or 1.0, edgecolors="white", linewidth=2)
    area.invert_yaxis()
    area.grid(visible=False)
    columns, rows = [[shorten(name, 14) for name in names] for names in (matrix.columns, matrix.rows)]
    area.set_xticks([place + 0.5 for place in range(len(columns))], columns, rotation=25, ha="right")
    area.set_yticks([place + 0.5 for place in range(len(rows))], rows)
    area.set_xlabel(matrix.x_title)
    area.set_ylabel(matrix.y_title)
    for row, line in enumerate(matrix.texts):
        for column, text in enumerate(line):
            area.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7, color="#1b1f24")
