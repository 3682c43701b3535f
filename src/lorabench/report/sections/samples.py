"""What the lowest configuration of each corpus writes after the beginning of a validation document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.records.schema import Sample
from lorabench.report.picture import Picture
from lorabench.report.section import PagePart, Report, Section

_PAGE = """
<h2>Sample continuations</h2>
<p class="lead">From the lowest configuration of each corpus; those of every run are in its details below. A few samples
 say little: they are for looking, not for choosing.</p>
{% for corpus, label, items in samples %}<details{% if loop.first %} open{% endif %}>
  <summary><bdi>{{ corpus }}</bdi> · <bdi>{{ label }}</bdi></summary>
  <div class="stack">{% for sample in items %}<dl class="sample">
    <div><dt>beginning of a validation document</dt><dd>{{ sample.prompt }}</dd></div>
    {% if sample.base_continuation is not none %}
    <div><dt>the base goes on</dt><dd>{{ sample.base_continuation.lstrip() }}</dd></div>{% endif %}
    <div><dt>the adapter goes on</dt><dd>{{ sample.continuation.lstrip() }}</dd></div></dl>{% endfor %}</div></details>
{% endfor %}
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    by_id = {record.run_id: record for record in report.records}
    shown: list[tuple[str, str, tuple[Sample, ...]]] = []
    for corpus in report.findings.corpora:
        if corpus.best.lowest is not None:
            candidate = report.findings.candidate(corpus.best.lowest)
            record = by_id.get(candidate.run_ids[0]) if candidate.run_ids else None
            if record is not None and record.samples:
                shown.append((corpus.label, candidate.label, record.samples[:3]))
    return {"samples": shown} if shown else None


SECTION = Section("samples", 1000, page=PagePart(_PAGE, "Samples", _values))
