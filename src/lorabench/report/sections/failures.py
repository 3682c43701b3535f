"""Runs without a result, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.core.formatting import NONE
from lorabench.report.markdown import escape, table
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart

MAX_FAILURES = 10
"""In the summary; the tables beside it list them all."""
_PAGE = """
<h2>Runs without a full result</h2>
<p class="lead">{{ runs | length | count }} of {{ num_runs | count }} runs. They are in no comparison.
 {% if num_interrupted %}{{ num_interrupted | count }} interrupted: the same command goes on.{% endif %}
 {% if runs | length > num_interrupted %}{{ (runs | length - num_interrupted) | count }} failed: the same command with
 <code>--retry failed</code> tries again.{% endif %}</p>
{{ scrolling("runs without a full result") }}<table>
  <thead><tr><th scope="col">state</th><th scope="col">configuration</th><th scope="col">corpus</th>
    <th scope="col">reason</th></tr></thead>
  <tbody>{% for run in runs[:max_table_rows] %}<tr>
    <td><span class="badge{{ '' if run.is_interrupted else ' bad' }}">
      {{- run.status.value | replace("_", " ") -}}</span></td>
    <td><bdi>{{ run.label }}</bdi></td><td><bdi>{{ run.corpus }}</bdi></td>
    <td><bdi>{{ run.reason }}</bdi></td></tr>{% endfor %}</tbody></table></div>
{% if runs | length > max_table_rows %}<p class="note">The first {{ max_table_rows }}; filter the table of all runs by
 status for the others.</p>{% endif %}
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    unfinished = report.findings.unfinished
    if not unfinished:
        return None
    num_interrupted = sum(run.is_interrupted for run in unfinished)
    return {"runs": unfinished, "num_runs": report.findings.overview.num_runs, "num_interrupted": num_interrupted}


def _summary(report: Report, reference: References) -> list[str]:
    unfinished = report.findings.unfinished
    if not unfinished:
        return []
    rows = [
        [escape(item.run_id), item.status.value.replace("_", " "), escape(item.reason or NONE, 500)]
        for item in unfinished
    ]
    title, headings, more = "### Runs without a result", ["run", "state", "reason"], len(rows) - MAX_FAILURES
    found = [title, table(headings, rows[:MAX_FAILURES], 3)]
    if more > 0:
        found += [f"… and {more} more in the tables.", Detail(title), Detail(table(headings, rows, 3))]
    return found


SECTION = Section(
    "failures",
    1200,
    page=PagePart(_PAGE, "Without a result", _values),
    summary=SummaryPart(Chapter.OVERVIEW, _summary),
)
