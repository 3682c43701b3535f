"""Training curves: on the page of whatever runs the reader chooses, as a file of the best ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.report.curves import TITLES, curves_finding, curves_picture, first_runs
from lorabench.report.picture import Picture
from lorabench.report.section import TEMPLATES, Chapter, PagePart, Report, Section, SummaryPart

_PAGE = """
<h2>Training curves</h2>
<p class="lead">Choose runs in the <a href="#runs">table of all runs</a>; at first the best of each corpus.</p>
<p class="finding"><bdi>{{ finding }}</bdi></p>
<ul class="chips" id="curves-chosen" aria-label="Runs drawn"></ul>
<p class="note" id="curves-empty" hidden>No run is chosen.</p>
<p class="note" id="curves-status" role="status"></p>
<div class="curves">
  {% for id, name in panels %}<figure><h3 id="curve-title-{{ id }}">{{ name }}</h3>
    <div class="plot short" id="curve-{{ id }}" aria-hidden="true"></div></figure>
  {% endfor %}
</div>
<details><summary>The figures as a table</summary>
  {{ scrolling("curves as a table") }}<table id="curves-table">
    <thead><tr><th scope="col">run</th><th scope="col" class="n">steps</th>
      <th scope="col" class="n">training, first</th>
      <th scope="col" class="n">training, last</th><th scope="col" class="n">validation, first</th>
      <th scope="col" class="n">validation, lowest</th><th scope="col" class="n">validation, last</th>
      <th scope="col" class="n">gradient norm, highest</th></tr></thead><tbody></tbody></table></div>
</details>
<p class="note">Lines are training, smoothed; points are validation. Training losses are brought from nats per token to
 bits per byte by the tokens a byte of the validation text. Curves are thinned here; every step is in
 <code>runs/RUN_ID/metrics.jsonl</code>.</p>
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    if not report.findings.overview.num_runs:
        return None
    return {"panels": list(TITLES.items()), "finding": curves_finding(report.findings, report.records)}


def _data(report: Report) -> Mapping[str, object]:
    return {
        "curves-data": report.curves.payload,
        "curves-first": first_runs(report.findings, report.ordered),
    }


def _picture(report: Report) -> Picture:
    return curves_picture(report.findings, report.ordered, report.store)


SECTION = Section(
    "curves",
    900,
    page=PagePart(_PAGE, "Training curves", _values, _data, (TEMPLATES / "curves.js").read_text(encoding="utf-8")),
    summary=SummaryPart(Chapter.EFFICIENCY, caption="Training curves of selected runs"),
    picture=_picture,
    is_drawn_on_page=False,
)
