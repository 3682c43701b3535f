"""Which base model is best over the corpora that all were tried on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.core.formatting import figure, shorten, span
from lorabench.report.headline import model_standing
from lorabench.report.markdown import bullets, escape, table
from lorabench.report.picture import BITS_TITLE, MAX_NAME, Kind, Panel, Picture, Point, Series, colours_of
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart
from lorabench.report.summary_tables import axis_blocks, comparison_table

_PAGE = """
<h2>Base models</h2>
{% if picture %}{{ figure(picture, "short") }}{% else %}<p class="claim"><bdi>{{ hierarchy.claim }}</bdi></p>{% endif %}
{{ scrolling("base models") }}<table>
  <thead><tr><th scope="col">model</th><th scope="col" class="n">mean bits/byte</th>
    <th scope="col" class="n">95 % interval</th><th scope="col" class="n">best alone on</th>
    <th scope="col" class="n">parameters</th><th scope="col"></th></tr></thead>
  <tbody>{% for item in hierarchy.ranking %}<tr{% if standings[item.model].is_decided %} class="best"{% endif %}>
    <th scope="row"><bdi>{{ item.model }}</bdi></th>
    <td class="n">{{ item.mean_bits_per_byte | figure }}</td>
    <td class="n">{{ span(item.mean_bits_per_byte) }}</td>
    <td class="n">{{ item.num_corpora_best }} of {{ hierarchy.corpora | length }}</td>
    <td class="n">{{ parameters[item.model] | millions }}</td>
    <td>{{ standing(standings[item.model]) if standings[item.model].words }}</td></tr>{% endfor %}</tbody></table></div>
{{ caveats(hierarchy.caveats) }}
{% if hierarchy.per_corpus %}<details><summary>Corpus by corpus</summary>
  {{ scrolling("models by corpus") }}<table>
    <thead><tr><th scope="col">corpus</th><th scope="col">result</th></tr></thead>
    <tbody>{% for item in hierarchy.per_corpus %}<tr><th scope="row"><bdi>{{ item.corpus }}</bdi></th>
      <td><bdi>{{ item.claim }}</bdi></td></tr>{% endfor %}</tbody></table></div></details>{% endif %}
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    hierarchy = report.findings.hierarchy
    if not hierarchy.ranking:
        return None
    return {
        "hierarchy": hierarchy,
        "picture": picture,
        "parameters": {model.name: model.num_parameters for model in report.findings.overview.models},
        "standings": {item.model: model_standing(hierarchy, item) for item in hierarchy.ranking},
    }


def _summary(report: Report, reference: References) -> list[str]:
    hierarchy = report.findings.hierarchy
    ranking = [
        [
            escape(item.model),
            figure(item.mean_bits_per_byte),
            span(item.mean_bits_per_byte),
            model_standing(hierarchy, item).words,
            f"{item.num_corpora_best} of {len(hierarchy.per_corpus)}",
        ]
        for item in hierarchy.ranking
    ]
    headings = ["model", "mean bits per byte", "95 % interval", "standing", "best alone on"]
    return [
        f"{escape(hierarchy.claim)}.",
        table(headings, ranking) if ranking else "",
        bullets(hierarchy.caveats) if hierarchy.caveats else "",
        *([Detail(comparison_table(hierarchy.comparisons))] if hierarchy.comparisons else []),
        *(Detail(block) for axis in hierarchy.per_corpus for block in axis_blocks(report.findings, axis, reference)),
    ]


def _picture(report: Report) -> Picture:
    """Each model's mean over the shared corpora."""
    hierarchy, colours = report.findings.hierarchy, colours_of(report.findings)
    ranked = [(item, item.mean_bits_per_byte) for item in hierarchy.ranking if item.mean_bits_per_byte is not None]
    series = tuple(
        Series(
            item.model,
            colours.get(item.model, index),
            (Point(mean.estimate, index, mean.low, mean.high, (item.model, figure(mean), span(mean))),),
        )
        for index, (item, mean) in enumerate(ranked)
        if mean is not None
    )
    ticks = tuple((float(index), shorten(item.model, MAX_NAME)) for index, (item, _) in enumerate(ranked))
    sentence = f"Mean over {len(hierarchy.corpora)} corpora, with 95 % intervals; lower is better"
    panel = Panel(
        *("all models", sentence, Kind.ROWS, f"mean {BITS_TITLE}", "", series), ticks=ticks, finding=hierarchy.claim
    )
    return Picture("models", "Base models over all shared corpora", (panel,) if len(series) > 1 else (), (), ())


SECTION = Section(
    "models",
    200,
    page=PagePart(_PAGE, "Base models", _values),
    summary=SummaryPart(Chapter.MODELS, _summary, "Base models over all shared corpora, with intervals"),
    picture=_picture,
)
