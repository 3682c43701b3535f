"""How far experiments have come that are not at their end, how a search's rungs stand, and which runs are queued."""

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
{% for race in one.races %}
<h3><bdi>{{ race.corpus }}</bdi>, {{ race.where }}: {{ race.num_scored | count }} of {{ race.num_here | count }}
 scored</h3>
{{ scrolling("the race on " ~ race.corpus) }}<table>
  <thead><tr><th scope="col">configuration</th><th scope="col" class="n">seeds</th><th scope="col" class="n">bits per
 byte</th><th scope="col" class="n">95 %</th><th scope="col">state</th></tr></thead>
  <tbody>{% for racer in race.racers[:max_table_rows] %}<tr><td><bdi>{{ racer.label }}</bdi></td>
    <td class="n">{{ racer.num_scored }}/{{ racer.run_ids | length }}</td>
    <td class="n">{{ racer.bits_per_byte | bits }}</td><td class="n">{{ racer.interval | span }}</td>
    <td>{% for run in one.under_way if run.run_id in racer.run_ids %}<span data-under-way="{{ run.run_id }}">{{
 run.sentence(one.asked.num_steps.get(run.run_id)) }}</span>{% if not loop.last %}; {% endif %}{% else %}{{
 racer.stopped or ("scored" if racer.is_scored else "to come") }}{% endfor %}</td></tr>{% endfor %}
 </tbody></table></div>
{% if race.racers | length > max_table_rows %}<p class="note">The first {{ max_table_rows }} of
 {{ race.racers | length | count }}.</p>{% endif %}
{% endfor %}
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
