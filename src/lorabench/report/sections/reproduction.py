"""What it ran on, the commands that do it again, and the runs behind every figure of the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorabench.core.formatting import count, size
from lorabench.records.schema import RunRecord
from lorabench.report.markdown import code_block, escape, table
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart

MAX_PLACES = 8
_PAGE = """
<h2>What it ran on, and how to do it again</h2>
{% for place in places %}<dl class="place">
  {% for name, value in place %}<dt>{{ name }}</dt><dd><bdi>{{ value }}</bdi></dd>{% endfor %}
</dl>{% endfor %}
<h3>Again</h3>
{% for command in commands %}<pre>{{ command }}</pre>{% endfor %}
<p class="note">The same command does only what is missing; <code>lorabench reproduce RUN_ID</code> does one run again
 from its record and compares.</p>
<h3>Texts and models</h3>
{{ scrolling("texts and models") }}<table>
  <thead><tr><th scope="col">name</th><th scope="col">what</th><th scope="col">revision</th><th scope="col">licence</th>
    <th scope="col">remarks</th></tr></thead>
  <tbody>
  {% for model in models %}<tr><th scope="row"><bdi>{{ model.name }}</bdi></th>
    <td>model, {{ model.num_parameters | millions }} parameters</td>
    <td><code>{{ model.revision | shorten(24) }}</code>
      {%- if not model.pinned %} <span class="badge open">not pinned</span>{% endif %}</td>
    <td><bdi>{{ model.licence or "–" }}</bdi></td><td><bdi>{{ model.weights_note or "" }}</bdi></td></tr>{% endfor %}
  {% for corpus in corpora %}<tr><th scope="row"><bdi>{{ corpus.label }}</bdi></th>
    <td>corpus, scored on {{ corpus.num_documents | documents(corpus.effective_documents) }},
      {{ corpus.num_bytes | size }}</td>
    <td><code>{{ corpus.revision | shorten(24) }}</code>
      {%- if not corpus.pinned %} <span class="badge open">not pinned</span>{% endif %}</td>
    <td><bdi>{{ corpus.licence or "–" }}</bdi></td>
    <td>{% if corpus.synthetic %}synthetic; {% endif %}
      {%- for reason, number in corpus.removed.items() if number -%}
      {{ number | count }} {{ reason | replace("_", " ") }} removed{{ "; " if not loop.last }}{% endfor %}
      {%- for caveat in corpus.caveats %}<br><small>{{ caveat }}</small>{% endfor %}</td></tr>{% endfor %}
  </tbody></table></div>
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    overview = report.findings.overview
    if not overview.num_runs:
        return None
    return {
        "places": _places(report.ordered),
        "commands": _commands(report),
        "models": overview.models,
        "corpora": report.findings.corpora,
    }


def _commands(report: Report) -> list[str]:
    return list(dict.fromkeys(line for item in report.findings.overview.experiments for line in item.commands))


def _places(records: Sequence[RunRecord]) -> list[list[tuple[str, str]]]:
    """Each distinct surrounding of runs, the most used first."""
    counted: dict[tuple[tuple[str, str], ...], int] = {}
    for record in records:
        place = record.environment
        commit = place.git_commit and place.git_commit[:12] + (" (changed)" if place.git_dirty else "")
        packages = ", ".join(f"{name} {version}" for name, version in place.packages.items())
        shown = (
            ("device", f"{place.num_devices} × {place.device_name} ({place.device})"),
            ("machine", f"{place.processor}, {place.num_cores} cores, {size(place.memory_bytes)}"),
            ("system", f"{place.operating_system}, Python {place.python_version}"),
            (
                "lorabench",
                " ".join(part for part in (place.lorabench_version, commit or place.code_sha256[:12]) if part),
            ),
            ("packages", packages),
        )
        counted[shown] = counted.get(shown, 0) + 1
    ordered = sorted(counted.items(), key=lambda item: -item[1])[:MAX_PLACES]
    return [[("runs", count(number)), *shown] for shown, number in ordered]


def _summary(report: Report, reference: References) -> list[str]:
    overview, commands = report.findings.overview, _commands(report)
    parts = []
    if commands:
        parts += ["The commands as they were given:", *(code_block(command) for command in commands)]
        versions = (
            f"lorabench {', '.join(map(escape, overview.lorabench_versions))}; {', '.join(map(escape, overview.code))}"
        )
        parts.append(f"With {versions}. One run again from its record, and compared:")
        parts.append(code_block(f"lorabench reproduce RUN_ID --output-dir {report.output_dir}"))
    parts += ["This summary again from the records alone:", code_block(f"lorabench report {report.output_dir}")]
    rows = [
        [name, escape(item.label), escape(item.corpus), ", ".join(map(escape, item.run_ids))]
        for key, name in reference.names.items()
        for item in [report.findings.candidate(key)]
    ]
    if rows:
        headings = ["", "configuration", "corpus", "runs, by seed"]
        parts += [Detail("### The runs behind the figures"), Detail(table(headings, rows, 4))]
    return parts


SECTION = Section(
    "place",
    1300,
    page=PagePart(_PAGE, "Reproduce", _values),
    summary=SummaryPart(Chapter.REPRODUCTION, _summary),
)
