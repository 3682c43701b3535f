"""Quality against what it takes: speed, memory and the adapter's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lorabench.analysis.findings import Candidate, Cost, EfficiencyPoint, Findings
from lorabench.core.formatting import count, figure, millions, number, size
from lorabench.report.markdown import escape, table
from lorabench.report.picture import BITS_TITLE, Kind, Panel, Picture, Point, Series, colours_of
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart
from lorabench.report.summary_tables import MAX_CANDIDATES

_PAGE = """
<h2>Quality against cost</h2>
<p class="lead">Compared within one corpus, hardware and precision only.</p>
{{ figure(picture, "wide") }}
"""


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
    return ["The lowest figure of each corpus, and the speed it was trained at:", "\n".join(lines), *parts]


def _lowest_words(findings: Findings, points: Sequence[EfficiencyPoint]) -> str:
    """What the configuration with the lowest figure costs."""
    lowest = min(points, key=lambda point: point.bits_per_byte)
    return f"{escape(findings.candidate(lowest.candidate).label)} with {_cost_text(lowest.cost)}"


def _fronts(*fronts: tuple[bool, str]) -> str:
    return ", ".join(name for is_on, name in fronts if is_on)


_COSTS: tuple[tuple[str, str, float, Callable[[Cost], float | None], Callable[[EfficiencyPoint], bool]], ...] = (
    ("speed", "bytes of text trained on per second", 1.0, lambda c: c.bytes_per_second, lambda p: p.on_speed_front),
    ("memory", "peak memory (MB)", 1e-6, lambda c: c.peak_memory_bytes, lambda p: p.on_memory_front),
    ("adapter size", "adapter (MB)", 1e-6, lambda c: c.adapter_bytes, lambda p: p.on_size_front),
)


def _picture(report: Report) -> Picture:
    """Quality against what it costs, within one corpus, hardware and precision."""
    findings, colours = report.findings, colours_of(report.findings)
    candidates = {item.key: item for corpus in findings.corpora for item in corpus.candidates}
    by_place: dict[tuple[str, str, str], list[EfficiencyPoint]] = {}
    for point in findings.efficiency:
        by_place.setdefault((point.corpus, point.hardware, point.precision), []).append(point)
    has_one_place = len({place[1:] for place in by_place}) <= 1
    panels: list[Panel] = []
    for place, points in by_place.items():
        where = place[0] if has_one_place else " · ".join(place)
        for name, title, factor, read, is_on_front in _COSTS:
            known = [(value * factor, point) for point in points if (value := read(point.cost)) is not None]
            if len(known) > 1:
                series = _cost_series(known, is_on_front, candidates, colours, rising=name == "speed")
                sentence = (
                    f"Quality against {name}; the line joins what nothing beats in both. Lower bits per byte are better"
                )
                panels.append(Panel(f"{where} · {name}", sentence, Kind.POINTS, title, BITS_TITLE, series))
    on_front = [p for p in findings.efficiency if p.on_speed_front or p.on_memory_front or p.on_size_front]
    columns = ("corpus", "configuration", "bits/byte", "tokens/s", "peak memory", "adapter", "on the front of")
    rows = tuple(_cost_row(point, candidates[point.candidate]) for point in on_front)
    return Picture("quality_by_cost", "Quality against cost", tuple(panels), columns, rows)


def _cost_series(
    known: Sequence[tuple[float, EfficiencyPoint]],
    is_on_front: Callable[[EfficiencyPoint], bool],
    candidates: dict[str, Candidate],
    colours: dict[str, int],
    *,
    rising: bool,
) -> tuple[Series, ...]:
    by_model: dict[str, list[Point]] = {}
    for x, point in known:
        candidate = candidates[point.candidate]
        lines = (candidate.label, figure(candidate.bits_per_byte), _cost_text(point.cost))
        by_model.setdefault(candidate.model, []).append(Point(x, point.bits_per_byte, lines=lines))
    front = sorted((x, point.bits_per_byte) for x, point in known if is_on_front(point))
    if rising:
        front.reverse()
    series = [Series(model, colours.get(model, 0), tuple(points)) for model, points in by_model.items()]
    if len(front) > 1:
        series.append(Series("Pareto front", -1, tuple(Point(x, y) for x, y in front), is_front=True))
    return tuple(series)


def _cost_text(cost: Cost) -> str:
    speed = f"{count(cost.tokens_per_second)} tokens/s"
    return f"{speed} · {size(cost.peak_memory_bytes)} · adapter {size(cost.adapter_bytes)}"


def _cost_row(point: EfficiencyPoint, candidate: Candidate) -> tuple[str, ...]:
    fronts = (("speed", point.on_speed_front), ("memory", point.on_memory_front), ("size", point.on_size_front))
    cost = point.cost
    return (
        point.corpus,
        candidate.label,
        figure(candidate.bits_per_byte),
        count(cost.tokens_per_second),
        size(cost.peak_memory_bytes),
        size(cost.adapter_bytes),
        ", ".join(name for name, is_on in fronts if is_on),
    )


SECTION = Section(
    "cost",
    500,
    page=PagePart(_PAGE, "Quality and cost"),
    summary=SummaryPart(Chapter.EFFICIENCY, _summary, "Quality against speed, memory and adapter size"),
    picture=_picture,
)
