"""What base and adapter scored on tasks of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorabench.records.schema import RunRecord
from lorabench.report.markdown import escape, table
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart

HEADINGS = ("run", "task", "metric", "examples", "base", "adapted", "difference")
_INTRODUCTION = (
    "Tasks of lm-evaluation-harness, done by the base and by each adapter: the figure ± its standard error. "
    "That of a difference is taken over pairs of answers to the same documents."
)
_PAGE = """
<h2>Tasks</h2>
<p class="lead">{{ introduction }}</p>
{{ scrolling("tasks") }}<table>
<thead><tr>{% for heading in headings %}<th>{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
"""


def _rows(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    return [
        (
            record.run_id,
            result.task,
            name if metric.higher_is_better is None else f"{name} {'↑' if metric.higher_is_better else '↓'}",
            f"{result.num_examples:,}",
            _figure(metric.base, metric.base_error),
            _figure(metric.adapted, metric.adapted_error),
            _figure(metric.adapted - metric.base, metric.difference_error, "+"),
        )
        for record in records
        for result in record.tasks
        for name, metric in result.metrics.items()
    ]


def _figure(value: float, error: float | None, sign: str = "") -> str:
    shown = f"{value:{sign}.4f}" + (f" ± {error:.4f}" if error is not None else "")
    return shown.replace("-", "−")


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    rows = _rows(report.ordered)
    return {"introduction": _INTRODUCTION, "headings": HEADINGS, "rows": rows} if rows else None


def _summary(report: Report, reference: References) -> Sequence[str]:
    rows = _rows(report.ordered)
    if not rows:
        return ()
    cells = [(*map(escape, row[:3]), *row[3:]) for row in rows]
    return (Detail(f"{_INTRODUCTION}\n\n{table(HEADINGS, cells, numbers_from=3)}"),)


SECTION = Section("tasks", 990, page=PagePart(_PAGE, "Tasks", _values), summary=SummaryPart(Chapter.BEST, _summary))
