"""What can be said of rank, learning rate and every other setting, each model and corpus by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lorabench.analysis.findings import Candidate
from lorabench.core.formatting import figure, figure_and_span, plural, span
from lorabench.records.columns import AXES
from lorabench.report.far import far_of, fitted
from lorabench.report.headline import setting_sentences
from lorabench.report.markdown import escape
from lorabench.report.picture import BITS_TITLE, Kind, Panel, Picture, Point, Series, interval_point
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart
from lorabench.report.summary_tables import axis_blocks, axis_line

MAX_AXES = 8
"""Cases of one setting in the summary, those with a difference first."""
_DODGE = 1.04
_READING = (
    "Each point is the best configuration with that rank and learning rate; lower is better. The 95 % intervals are "
    "those of each figure by itself, wide where documents differ; whether two settings differ is decided document by "
    "document, which is far surer, and is what the title says"
)
_PAGE = """
<h2>Rank, learning rate and other settings</h2>
{% if picture %}{{ figure(picture, "wide") }}{% endif %}
{% if axes %}<details{% if axes | length <= 6 %} open{% endif %}><summary>What can be said of each setting
  ({{- axes | length }})</summary>
{{ scrolling("settings") }}<table>
  <thead><tr><th scope="col">setting</th><th scope="col">model</th><th scope="col">corpus</th>
    <th scope="col">result</th></tr></thead>
  <tbody>{% for item in axes %}<tr><th scope="row"><bdi>{{ item.title }}</bdi></th>
    <td><bdi>{{ item.model or "all models" }}</bdi></td><td><bdi>{{ item.corpus }}</bdi></td>
    <td><bdi>{{ item.claim }}</bdi>
    {%- for caveat in item.caveats %}<br><small>{{ caveat }}</small>{% endfor %}</td></tr>{% endfor %}</tbody>
</table></div></details>{% endif %}
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    findings = report.findings
    axes = (*findings.ranks, *findings.learning_rates, *findings.other_axes)
    return {"picture": picture, "axes": axes} if picture is not None or axes else None


def _summary(report: Report, reference: References) -> list[str]:
    findings = report.findings
    groups = (
        ("Rank", findings.ranks, _only_one(report, "rank", "rank")),
        ("Learning rate", findings.learning_rates, _only_one(report, "learning_rate", "learning rate")),
        ("Other settings", findings.other_axes, ""),
    )
    parts = [f"{'. '.join(map(escape, found))}." if (found := setting_sentences(findings)) else ""]
    for title, axes, otherwise in groups:
        if axes or otherwise:
            parts.append(f"### {title}")
        told_first = sorted(axes, key=lambda axis: all(level.is_tied_best for level in axis.levels))
        parts.append("\n".join(map(axis_line, told_first[:MAX_AXES])) or otherwise)
        parts.append(f"… and {len(axes) - MAX_AXES} more in the tables." if len(axes) > MAX_AXES else "")
        parts += [Detail(block) for axis in axes for block in axis_blocks(findings, axis, reference)]
    return parts


def _only_one(report: Report, axis: str, title: str) -> str:
    """That a setting was not varied; nothing before there is a result, or while runs are to come."""
    has_result = any(corpus.candidates for corpus in report.findings.corpora)
    shown = {AXES[axis].show(record.spec) for record in report.records}
    if not has_result or report.progress or len(shown) != 1 or None in shown:
        return ""
    return f"Only one {title} was tried, so {title}s cannot be compared."


def _picture(report: Report) -> Picture:
    """Each rank over the learning rates, for every model and corpus with more than one of either."""
    findings = report.findings
    panels, rows, far = [], [], far_of(findings.corpora)
    claims = {(item.corpus, item.model): item.claim for item in (*findings.learning_rates, *findings.ranks)}
    for corpus in findings.corpora:
        for model in dict.fromkeys(item.model for item in corpus.candidates):
            cells = _best_of_cells(item for item in corpus.candidates if item.model == model)
            if len(cells) < 2:
                continue
            finding = claims.get((corpus.label, model), f"{corpus.label}, {model}: settings that varied together")
            panels.append(fitted(_rank_panel(f"{corpus.label} · {model}", finding, cells, far)))
            rows += [
                (corpus.label, model, rank, f"{rate:g}", figure(item.bits_per_byte), span(item.bits_per_byte))
                for (rank, rate), item in sorted(cells.items(), key=lambda cell: _cell_order(cell[0]))
            ]
    columns = ("corpus", "model", "rank", "learning rate", "bits/byte", "95 % interval")
    return Picture("rank_by_learning_rate", "Rank and learning rate", tuple(panels), columns, tuple(rows))


def _best_of_cells(candidates: Iterable[Candidate]) -> dict[tuple[str, float], Candidate]:
    """By rank and learning rate the lowest; candidates come lowest first."""
    cells: dict[tuple[str, float], Candidate] = {}
    for item in candidates:
        rate, rank = item.settings.get("learning_rate"), item.settings.get("rank")
        if isinstance(rate, int | float):
            cells.setdefault((str(rank) if rank is not None else str(item.settings.get("method")), rate), item)
    return cells


def _cell_order(cell: tuple[str, float]) -> tuple[bool, float, str, float]:
    rank, rate = cell
    return not rank.isdecimal(), float(rank) if rank.isdecimal() else 0.0, rank, rate


def _rank_panel(label: str, finding: str, cells: dict[tuple[str, float], Candidate], far: Collection[str]) -> Panel:
    """Over the learning rates a line for each rank; with one rate only, over the ranks."""
    order = sorted(cells, key=_cell_order)
    ranks = list(dict.fromkeys(rank for rank, _ in order))
    rates = sorted({rate for _, rate in order})
    if len(rates) == 1:
        points = tuple(_point(position, cells[rank, rates[0]], far) for position, rank in enumerate(ranks))
        ticks = tuple((float(position), rank) for position, rank in enumerate(ranks))
        series = (Series(f"rate {rates[0]:g}", 0, points),)
        return Panel(label, _READING, Kind.LINES, "rank", BITS_TITLE, series, ticks=ticks, finding=finding)
    lines = []
    for index, rank in enumerate(ranks):
        shift = _DODGE ** (index - (len(ranks) - 1) / 2)
        points = tuple(_point(rate * shift, cells[rank, rate], far) for rate in rates if (rank, rate) in cells)
        lines.append(Series(f"rank {rank}" if rank.isdecimal() else rank, index, points))
    ticks = tuple((rate, f"{rate:g}") for rate in rates)
    axes = ("learning rate", BITS_TITLE)
    return Panel(label, _READING, Kind.LINES, *axes, tuple(lines), is_log_x=True, ticks=ticks, finding=finding)


def _point(x: float, item: Candidate, far: Collection[str]) -> Point:
    about = item.label, figure_and_span(item.bits_per_byte), plural(len(item.seeds), "seed")
    return interval_point(x, item.bits_per_byte, *about, is_far=item.key in far)


SECTION = Section(
    "settings",
    400,
    page=PagePart(_PAGE, "Rank and rate", _values),
    summary=SummaryPart(
        Chapter.CONFIGURATION, _summary, "Validation bits per byte by rank and learning rate, with intervals"
    ),
    picture=_picture,
)
