"""How far experiments have come that are not at their end, and which runs are queued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.report.markdown import escape
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, PagePart, References, Report, Section, SummaryPart

_PAGE = """
<h2>Not at its end yet</h2>
{% for one in progress %}
<p><bdi>{{ one.sentence }}</bdi>.</p>
{% if one.under_way %}<ul>{% for run in one.under_way %}
<li><bdi><code>{{ run.run_id }}</code></bdi> under way: <span data-under-way="{{ run.run_id }}">{{
 run.sentence(one.asked.num_steps.get(run.run_id)) }}</span></li>{% endfor %}</ul>{% endif %}
{% for title, ids in ((one.begun | capitalize, one.interrupted), ("To come", one.queued)) if ids %}
<details><summary>{{ title }}: {{ ids | length | count }} <span class="muted">of <bdi>{{ one.asked.name }}</bdi>
 </span></summary>
<ul>{% for run_id in ids[:max_table_rows] %}<li><bdi><code>{{ run_id }}</code></bdi></li>{% endfor %}</ul>
{% if ids | length > max_table_rows %}<p class="note">The first {{ max_table_rows }}; <code>lorabench plan</code> lists
 all.</p>{% endif %}</details>
{% endfor %}
{% endfor %}
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    return {"progress": report.progress} if report.progress else None


def _summary(report: Report, reference: References) -> list[str]:
    return [f"**Not at its end yet:** {escape(one.sentence, 300)}." for one in report.progress]


SECTION = Section(
    "progress",
    90,
    page=PagePart(_PAGE, "Progress", _values),
    summary=SummaryPart(Chapter.TOP, _summary),
)
