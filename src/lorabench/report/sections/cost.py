"""Quality against what it takes: speed, memory and the adapter's size."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorabench.analysis.findings import Candidate, Cost, EfficiencyPoint, Findings
from lorabench.core.formatting import cost, count, figure, millions, number, size
from lorabench.report.far import far_of, fitted
from lorabench.report.markdown import escape, table
from lorabench.report.marking import Mark, marks_of, series_of
from lorabench.report.picture import BITS_TITLE, Kind, Panel, Picture, Point, Series, colours_of
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart
from lorabench.report.summary_tables import MAX_CANDIDATES

_PAGE = """
<h2>Quality against cost</h2>
<p class="lead">Compared within one corpus, hardware and precision only.</p>
{% for sentence in one_speed %}<p class="claim"><bdi>{{ sentence }}</bdi>.</p>{% endfor %}
{% if picture %}{{ figure(picture, "wide") }}{% endif %}
"""
_LEAST_RANGE = 0.05
"""A cost's axis reaches at least this share of its median to both sides."""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    one_speed = _one_speed(report.findings)
    return {"picture": picture, "one_speed": one_speed} if picture is not None or one_speed else None


def _summary(report: Report, reference: References) -> list[str]:
    findings = report.findings
    if not findings.efficiency:
        return ["No run has a result yet."]
    about = (
        "Medians over seeds; compare only within one table. Tokens per second are comparable within one tokenizer, "
        "bytes per second between models. On a front is what no other configuration beats in quality and that cost."
    )
    parts: list[str] = [Detail(about)]
    lines = []
    places = dict.fromkeys((point.corpus, point.hardware, point.precision) for point in findings.efficiency)
    for corpus, hardware, precision in places:
        points = [
            item
            for item in findings.efficiency
            if (item.corpus, item.hardware, item.precision) == (corpus, hardware, precision)
        ]
        rows = [
            [
                reference(point.candidate),
                escape(findings.candidate(point.candidate).label),
                figure(findings.candidate(point.candidate).bits_per_byte),
                count(point.cost.tokens_per_second),
                count(point.cost.bytes_per_second),
                number(point.cost.train_seconds, 3),
                size(point.cost.peak_memory_bytes),
                size(point.cost.adapter_bytes),
                millions(point.cost.trainable_parameters),
                _fronts(
                    (point.on_speed_front, "speed"), (point.on_memory_front, "memory"), (point.on_size_front, "size")
                ),
            ]
            for point in points[:MAX_CANDIDATES]
        ]
        headings = [
            "",
            "configuration",
            "bits per byte",
            "tokens/s",
            "bytes/s",
            "training, s",
            "peak memory",
            "adapter",
        ]
        where = f"**{escape(corpus)}, {escape(hardware)}, {escape(precision)}**"
        lines.append(f"- {where}: {_lowest_words(findings, points)}.")
        more = len(points) - len(rows)
        parts += [Detail(where), Detail(table([*headings, "trainable", "on the front of"], rows, 2))]
        parts.append(Detail(f"… and {more} more configurations." if more > 0 else ""))
    one_speed = " ".join(f"{escape(sentence)}." for sentence in _one_speed(findings))
    return ["The lowest figure of each corpus, and the speed it was trained at:", "\n".join(lines), one_speed, *parts]


def _lowest_words(findings: Findings, points: Sequence[EfficiencyPoint]) -> str:
    """What the configuration with the lowest figure costs."""
    lowest = min(points, key=lambda point: point.bits_per_byte)
    return f"{escape(findings.candidate(lowest.candidate).label)} with {_cost_text(lowest.cost)}"


def _fronts(*fronts: tuple[bool, str]) -> str:
    return ", ".join(name for is_on, name in fronts if is_on)


@dataclass(frozen=True)
class _CostAxis:
    name: str
    title: str
    factor: float
    cheaper: str
    read: Callable[[Cost], float | None]
    is_on_front: Callable[[EfficiencyPoint], bool]
    is_rising: bool = False
    """Whether more is better."""


_COSTS = (
    _CostAxis(
        *("speed", "bytes of text trained on per second", 1.0, "faster"),
        lambda taken: taken.bytes_per_second,
        lambda point: point.on_speed_front,
        is_rising=True,
    ),
    _CostAxis(
        *("memory", "peak memory (MB)", 1e-6, "smaller in memory"),
        lambda taken: taken.peak_memory_bytes,
        lambda point: point.on_memory_front,
    ),
    _CostAxis(
        *("adapter size", "adapter (MB)", 1e-6, "smaller to keep"),
        lambda taken: taken.adapter_bytes,
        lambda point: point.on_size_front,
    ),
)


def _picture(report: Report) -> Picture:
    """Quality against what it costs, within one corpus, hardware and precision."""
    findings = report.findings
    candidates = {item.key: item for corpus in findings.corpora for item in corpus.candidates}
    marks = marks_of(list(candidates.values()), colours_of(findings))
    by_place, far = _by_place(findings), far_of(findings.corpora)
    has_one_place = len({place[1:] for place in by_place}) <= 1
    panels: list[Panel] = []
    for place, points in by_place.items():
        where = place[0] if has_one_place else " · ".join(place)
        for axis in _COSTS:
            known = [(value * axis.factor, point) for point in points if (value := axis.read(point.cost)) is not None]
            if len(known) > 1 and (axis.name != "speed" or points[0].is_speed_told):
                panels.append(fitted(_panel(f"{where} · {axis.name}", axis, known, candidates, marks, far)))
    on_front = [p for p in findings.efficiency if p.on_speed_front or p.on_memory_front or p.on_size_front]
    columns = ("corpus", "configuration", "bits/byte", "tokens/s", "peak memory", "adapter", "on the front of")
    rows = tuple(_cost_row(point, candidates[point.candidate]) for point in on_front)
    return Picture("quality_by_cost", "Quality against cost", tuple(panels), columns, rows)


def _by_place(findings: Findings) -> dict[tuple[str, str, str], list[EfficiencyPoint]]:
    """Corpus, hardware and precision: what is compared."""
    found: dict[tuple[str, str, str], list[EfficiencyPoint]] = {}
    for point in findings.efficiency:
        found.setdefault((point.corpus, point.hardware, point.precision), []).append(point)
    return found


def _one_speed(findings: Findings) -> list[str]:
    """Where the configurations' speeds differ by no more than like runs do, a sentence: they are one value."""
    found = []
    for (corpus, _, _), points in _by_place(findings).items():
        speeds = [speed for point in points if (speed := point.cost.tokens_per_second) is not None]
        spread = points[0].speed_spread
        if len(speeds) > 1 and spread is not None and not points[0].is_speed_told:
            middle = f"{count(statistics.median(speeds))} tokens/s"
            found.append(f"On {corpus} speed is one value, {middle}: like runs differ by {number(100 * spread, 2)} %")
    return found


def _panel(
    label: str,
    axis: _CostAxis,
    known: Sequence[tuple[float, EfficiencyPoint]],
    candidates: Mapping[str, Candidate],
    marks: Mapping[str, Mark],
    far: Collection[str],
) -> Panel:
    """With what nothing beats in both quality and cost joined by a line."""
    points = []
    for x, point in known:
        item = candidates[point.candidate]
        lines = (item.label, figure(item.bits_per_byte), _cost_text(point.cost))
        mark, is_out = marks[item.key], item.key in far
        points.append((mark, Point(x, point.bits_per_byte, lines=lines, text=mark.text, is_far=is_out)))
    front = sorted(((x, point) for x, point in known if axis.is_on_front(point)), key=lambda pair: pair[0])
    if axis.is_rising:
        front.reverse()
    series = series_of(points)
    if len(front) > 1:
        steps = tuple(Point(x, point.bits_per_byte) for x, point in front)
        series = (*series, Series("Pareto front", -1, steps, is_front=True))
    middle = statistics.median([x for x, _ in known])
    spread = known[0][1].speed_spread if axis.name == "speed" else None
    room = middle * max(_LEAST_RANGE, 2.0 * (spread or 0.0))
    return Panel(
        label,
        f"Quality against {axis.name}; the line joins what nothing beats in both. Lower bits per byte are better",
        Kind.POINTS,
        axis.title,
        BITS_TITLE,
        series,
        finding=_finding(axis, known, candidates, marks),
        least_x=(middle - room, middle + room),
    )


def _finding(
    axis: _CostAxis,
    known: Sequence[tuple[float, EfficiencyPoint]],
    candidates: Mapping[str, Candidate],
    marks: Mapping[str, Mark],
) -> str:
    """The lowest figure and the cheapest of those that nothing beats, and what that one loses."""
    lowest = min(known, key=lambda pair: (pair[1].bits_per_byte, -pair[0] if axis.is_rising else pair[0]))
    front = [pair for pair in known if axis.is_on_front(pair[1])] or [lowest]
    cheapest = (max if axis.is_rising else min)(front, key=lambda pair: pair[0])
    name, other = (marks[pair[1].candidate].whole for pair in (lowest, cheapest))
    if cheapest[1].candidate == lowest[1].candidate:
        return f"{name} has the lowest figure, and nothing else is {axis.cheaper}"
    share = number(100.0 * abs(cheapest[0] - lowest[0]) / lowest[0], 2)
    worse = cost(cheapest[1].bits_per_byte - lowest[1].bits_per_byte)
    return f"{name} has the lowest figure; {other} is {share} % {axis.cheaper} and {worse} bits per byte worse"


def _cost_text(taken: Cost) -> str:
    speed = f"{count(taken.tokens_per_second)} tokens/s"
    return f"{speed} · {size(taken.peak_memory_bytes)} · adapter {size(taken.adapter_bytes)}"


def _cost_row(point: EfficiencyPoint, candidate: Candidate) -> tuple[str, ...]:
    fronts = (("speed", point.on_speed_front), ("memory", point.on_memory_front), ("size", point.on_size_front))
    return (
        point.corpus,
        candidate.label,
        figure(candidate.bits_per_byte),
        count(point.cost.tokens_per_second),
        size(point.cost.peak_memory_bytes),
        size(point.cost.adapter_bytes),
        ", ".join(name for name, is_on in fronts if is_on),
    )


SECTION = Section(
    "cost",
    500,
    page=PagePart(_PAGE, "Quality and cost", _values),
    summary=SummaryPart(Chapter.EFFICIENCY, _summary, "Quality against speed, memory and adapter size"),
    picture=_picture,
)
