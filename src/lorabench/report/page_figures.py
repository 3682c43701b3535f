"""The figures as plotly wants them: plain data and layout, without importing plotly.

Colours are names of the page's style sheet (`--c0`), which the page looks up, so that figures follow light and dark.
plotly reads a few HTML tags in every text it is given; `plot_text` makes text of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorabench.report.picture import Kind, Matrix, Panel, Picture, Point, Series

NUM_COLOURS = 8
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "pentagon")


def plot_text(text: str) -> str:
    """`text` so that plotly shows it as it is, markup and entities included."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def figures_payload(pictures: Sequence[Picture]) -> dict[str, Any]:
    """By picture its panels: label, sentence, plotly's data and layout."""
    return {
        picture.name: [
            {"label": panel.label, "finding": panel.finding, "sentence": panel.sentence}
            | (_matrix(panel) if isinstance(panel, Matrix) else _panel(panel))
            for panel in picture.panels
        ]
        for picture in pictures
    }


def _colour(place: int) -> str:
    return "--muted" if place < 0 else f"--c{place % NUM_COLOURS}"


def _hover(lines: Sequence[str]) -> str:
    return "<br>".join(plot_text(line) for line in lines)


def _panel(panel: Panel) -> dict[str, Any]:
    trace = {Kind.BARS: _bars, Kind.ROWS: _rows, Kind.LINES: _scatter, Kind.POINTS: _scatter}[panel.kind]
    x: dict[str, Any] = {"title": {"text": plot_text(panel.x_title)}}
    y: dict[str, Any] = {"title": {"text": plot_text(panel.y_title)}}
    names = y if panel.kind is Kind.ROWS else x
    if panel.ticks:
        names |= {
            "tickvals": [position for position, _ in panel.ticks],
            "ticktext": [plot_text(text) for _, text in panel.ticks],
            "zeroline": False,
        }
        if not panel.is_log_x:
            names |= {"range": _name_range(len(panel.ticks))}
    if panel.kind is Kind.ROWS:
        y |= {"range": [len(panel.ticks) - 0.4, -0.6]}
    if panel.is_log_x:
        x |= {"type": "log"}
    elif panel.least_x is not None:
        x |= {"range": _range(panel)}
    layout: dict[str, Any] = {"xaxis": x, "yaxis": y, "showlegend": len(panel.series) > 1}
    if panel.kind is Kind.ROWS:
        has_names = len(panel.series) == len(panel.ticks)
        layout |= {"showlegend": not has_names and len(panel.series) > 1}
        layout |= {"height": 110 + max(24, 40 - len(panel.ticks)) * len(panel.ticks)}
    data = [trace(series, panel.kind) for series in panel.series]
    _name_once(data)
    if panel.kind is Kind.POINTS and panel.has_texts:
        _add_texts(panel, data)
    elif panel.has_far_texts:
        _add_far_texts(panel, data)
    return {"data": data, "layout": layout}


def _name_once(data: Sequence[dict[str, Any]]) -> None:
    """Series of one name have one line in the legend, which shows and hides them together."""
    named = set[str]()
    for trace in data:
        trace["legendgroup"] = trace["name"]
        if trace["name"] in named:
            trace["showlegend"] = False
        named.add(trace["name"])


def _range(panel: Panel) -> list[float]:
    """All x and their intervals with some room, and at least what the panel wants."""
    assert panel.least_x is not None
    points = [point for series in panel.series for point in series.points]
    values = [point.x for point in points]
    if panel.kind is Kind.ROWS:
        values += [end for point in points for end in (point.low, point.high) if end is not None]
    pad = 0.06 * (max(*values, panel.least_x[1]) - min(*values, panel.least_x[0]))
    return [min(panel.least_x[0], min(values) - pad), max(panel.least_x[1], max(values) + pad)]


def _add_texts(panel: Panel, data: Sequence[dict[str, Any]]) -> None:
    """Beside the points, in turn above and below from left to right."""
    points = sorted({point.x: 0 for series in panel.series for point in series.points})
    places = {x: ("top center", "bottom center")[place % 2] for place, x in enumerate(points)}
    for series, trace in zip(panel.series, data, strict=True):
        if not series.is_front and any(point.text for point in series.points):
            trace |= {
                "mode": "markers+text",
                "text": [plot_text(point.text) for point in series.points],
                "textposition": [places[point.x] for point in series.points],
                "textfont": {"size": 11, "color": "--muted"},
                "cliponaxis": False,
            }


def _add_far_texts(panel: Panel, data: Sequence[dict[str, Any]]) -> None:
    """Beside the points at the edge alone."""
    for series, trace in zip(panel.series, data, strict=True):
        if any(point.is_far for point in series.points):
            trace |= {
                "mode": f"{trace['mode']}+text",
                "text": [plot_text(point.text) if point.is_far else "" for point in series.points],
                "textposition": "middle right" if panel.kind is Kind.ROWS else "bottom center",
                "textfont": {"size": 11, "color": "--muted"},
            }


def _symbol(series: Series, usual: str) -> str | list[str]:
    if not any(point.is_far for point in series.points):
        return usual
    return ["x" if point.is_far else usual for point in series.points]


def _name_range(num_names: int) -> list[float]:
    """Room for at least three names, so that a single bar is not as wide as the figure."""
    pad = 0.6 + max(0, 3 - num_names) / 2
    return [-pad, num_names - 1 + pad]


def _scatter(series: Series, kind: Kind) -> dict[str, Any]:
    points = series.points
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": plot_text(series.name),
        "x": [point.x for point in points],
        "y": [point.y for point in points],
        "line": {"color": _colour(series.colour), "width": 2, "dash": "dash" if series.is_dashed else "solid"},
    }
    if series.is_front:
        return trace | {"mode": "lines", "line": trace["line"] | {"shape": "hv", "width": 1.5}, "hoverinfo": "skip"}
    symbol = _symbol(series, _SYMBOLS[series.colour % len(_SYMBOLS)])
    return trace | {
        "mode": "markers" if kind is Kind.POINTS else "lines+markers",
        "marker": {"color": _colour(series.colour), "size": 8, "symbol": symbol, "opacity": 0.85},
        "hoverinfo": "text",
        "hovertext": [_hover(point.lines) for point in points],
        "error_y": _error(points, [point.y for point in points], series.colour),
    }


def _rows(series: Series, kind: Kind) -> dict[str, Any]:
    """Points beside names: figure and place are exchanged."""
    points = series.points
    return {
        "type": "scatter",
        "name": plot_text(series.name),
        "mode": "markers",
        "x": [point.x for point in points],
        "y": [point.y for point in points],
        "marker": {"color": _colour(series.colour), "size": 10, "symbol": _symbol(series, "circle")},
        "hoverinfo": "text",
        "hovertext": [_hover(point.lines) for point in points],
        "error_x": _error(points, [point.x for point in points], series.colour),
    }


def _bars(series: Series, kind: Kind) -> dict[str, Any]:
    points = series.points
    return {
        "type": "bar",
        "name": plot_text(series.name),
        "x": [point.x for point in points],
        "y": [point.y for point in points],
        "marker": {"color": _colour(series.colour)},
        "hoverinfo": "text",
        "hovertext": [_hover(point.lines) for point in points],
        "textposition": "none",
        "error_y": _error(points, [point.y for point in points], -1),
    }


def _error(points: Sequence[Point], centres: Sequence[float], colour: int) -> dict[str, Any]:
    pairs = list(zip(points, centres, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [None if point.high is None else point.high - centre for point, centre in pairs],
        "arrayminus": [None if point.low is None else centre - point.low for point, centre in pairs],
        "color": _colour(colour),
        "thickness": 1.5,
        "width": 4,
        "visible": any(point.low is not None for point in points),
    }


def _matrix(matrix: Matrix) -> dict[str, Any]:
    known = [abs(value) for line in matrix.values for value in line if value is not None]
    limit = max(known, default=0.0) or 1.0
    rows, columns = range(len(matrix.rows)), range(len(matrix.columns))
    heat = {
        "type": "heatmap",
        "x": list(columns),
        "y": list(rows),
        "z": matrix.values,
        "zmin": -limit,
        "zmax": limit,
        "colorscale": [[0, "--better"], [0.5, "--even"], [1, "--worse"]],
        "showscale": False,
        "xgap": 3,
        "ygap": 3,
        "hoverinfo": "text",
        "hovertext": [[_hover(lines) for lines in line] for line in matrix.lines],
        "text": [[plot_text(text) for text in line] for line in matrix.texts],
        "texttemplate": "%{text}",
        "textfont": {"color": "--ink"},
    }
    layout = {
        "xaxis": _names(matrix.x_title, matrix.columns) | {"range": [-0.5, len(columns) - 0.5]},
        "yaxis": _names(matrix.y_title, matrix.rows) | {"range": [len(rows) - 0.5, -0.5]},
        "height": 150 + 44 * len(rows),
    }
    return {"data": [heat], "layout": layout}


def _names(title: str, names: Sequence[str]) -> dict[str, Any]:
    return {
        "title": {"text": plot_text(title)},
        "tickvals": list(range(len(names))),
        "ticktext": [plot_text(name) for name in names],
        "showgrid": False,
        "zeroline": False,
    }
