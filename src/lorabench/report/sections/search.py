"""The race of a search: what every run scored at each rung, who left where and why, and what that saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorabench.analysis.facts import Racer, SearchFindings
from lorabench.core.formatting import NONE, plural, shorten
from lorabench.records.schema import Scores, Status
from lorabench.report.far import fitted, is_far
from lorabench.report.markdown import escape, prose, table
from lorabench.report.picture import BITS_TITLE, Kind, Panel, Picture, Point, Series
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart

MAX_RACERS = 10
"""In the summary; the details list them all."""
_HEADINGS = ("configuration", "seed", "reached", "bits per byte there", "what became of it")
_PAGE = """
<h2>The search</h2>
{% for item in searches %}<p class="lead">{{ item.claim }} on <bdi>{{ item.corpus }}</bdi>. {{ item.saving }}.</p>
<p class="note">{{ item.promise }}.{% if item.turned %} <bdi>{{ item.turned }}</bdi>.{% endif %}</p>{% endfor %}
{{ figure(picture) }}
{% for item in searches %}<details><summary>Who left where on <bdi>{{ item.corpus }}</bdi></summary>
{{ scrolling("who left the search where") }}<table>
  <thead><tr>{% for heading in headings %}<th scope="col">{{ heading }}</th>{% endfor %}</tr></thead>
  <tbody>{% for row in rows[loop.index0][:max_table_rows] %}<tr>{% for cell in row %}
    <td><bdi>{{ cell }}</bdi></td>{% endfor %}</tr>{% endfor %}</tbody></table></div></details>{% endfor %}
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    searches = report.findings.searches
    if not searches:
        return None
    rows = [[_row(racer) for racer in found.racers] for found in searches]
    return {"searches": searches, "rows": rows, "headings": _HEADINGS, "picture": picture}


def _row(racer: Racer) -> tuple[str, ...]:
    share, bits = racer.points[-1] if racer.points else (0.0, None)
    became = "finished" if racer.status is Status.COMPLETED else racer.reason or racer.status.value
    return racer.label, str(racer.seed), f"{share:.3g} of its steps", NONE if bits is None else f"{bits:.4f}", became


def _summary(report: Report, reference: References) -> list[str]:
    found: list[str] = []
    for item in report.findings.searches:
        sentences = "\n".join(
            f"- {prose(text)}." for text in (item.claim, item.saving, item.promise, item.turned) if text
        )
        found += [f"### The search on {escape(item.corpus)}", sentences]
        rows = [[escape(cell, 500) for cell in _row(racer)] for racer in item.racers]
        found.append(table(list(_HEADINGS), rows[:MAX_RACERS], 2))
        if len(rows) > MAX_RACERS:
            found += [Detail(f"### The search on {escape(item.corpus)}"), Detail(table(list(_HEADINGS), rows, 2))]
    return found


def _picture(report: Report) -> Picture:
    searches = report.findings.searches
    bases = {record.run_id: record.base_validation for record in report.records}
    panels = tuple(fitted(_panel(item, bases)) for item in searches)
    rows = tuple((item.corpus, *_row(racer)) for item in searches for racer in item.racers)
    return Picture("search", "The race over rungs", panels, ("corpus", *_HEADINGS), rows)


def _panel(item: SearchFindings, bases: Mapping[str, Scores | None]) -> Panel:
    """Those that finished in colours, those that were stopped dashed and grey."""
    below = [
        base.bits_per_byte - bits for racer in item.racers if (base := bases[racer.run_id]) for _, bits in racer.points
    ]
    most = max(below, default=0.0)
    names = _names(item.racers)
    colours = iter(range(len(item.racers)))
    series = tuple(
        Series(
            shorten(f"{name}, seed {racer.seed}", 60) if racer.status is Status.COMPLETED else "stopped early",
            next(colours) if racer.status is Status.COMPLETED else -1,
            tuple(_point(racer, share, bits, bases[racer.run_id], most) for share, bits in racer.points),
            is_dashed=racer.status is not Status.COMPLETED,
        )
        for name, racer in zip(names, item.racers, strict=True)
        if racer.points
    )
    sentence = "What each run scored at a rung, as though it ended there, and at its end; lower is better"
    shares = sorted({share for racer in item.racers for share, _ in racer.points})
    ticks = tuple((share, "the end" if share == 1.0 else f"{100 * share:.3g} %") for share in shares)
    axes = ("share of a run", BITS_TITLE)
    finding = _finding(item, names)
    return Panel(item.corpus, sentence, Kind.LINES, *axes, series, is_log_x=True, ticks=ticks, finding=finding)


def _names(racers: Sequence[Racer]) -> list[str]:
    """What of each label is not in all of them."""
    parts = [racer.label.split(", ") for racer in racers]
    shared = set(parts[0]).intersection(*parts)
    return [
        ", ".join(part for part in own if part not in shared) or racer.label
        for own, racer in zip(parts, racers, strict=True)
    ]


def _finding(item: SearchFindings, names: Sequence[str]) -> str:
    """Which run ended lowest."""
    ended = [
        (racer.points[-1][1], f"{name}, seed {racer.seed}")
        for name, racer in zip(names, item.racers, strict=True)
        if racer.status is Status.COMPLETED and racer.points
    ]
    if not ended:
        return item.claim
    bits, name = min(ended)
    return f"Lowest at the end, of {plural(len(ended), 'run')}, is {name}, with {bits:.4f} bits per byte"


def _point(racer: Racer, share: float, bits: float, base: Scores | None, best_gain: float) -> Point:
    is_out = base is not None and is_far(bits, base.bits_per_byte, best_gain)
    return Point(share, bits, lines=(racer.label, f"{bits:.4f}", racer.reason), is_far=is_out)


SECTION = Section(
    "search",
    250,
    page=PagePart(_PAGE, "The search", _values),
    summary=SummaryPart(Chapter.BEST, _summary, caption="The race over rungs"),
    picture=_picture,
)
