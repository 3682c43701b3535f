"""What every configuration gains on its own corpus against what it costs on another one."""

from __future__ import annotations

from lorabench.analysis.findings import Candidate, DriftCell
from lorabench.core.formatting import percent_and_span, relative_gain
from lorabench.report.picture import Kind, Panel, Picture, Point, Series, colours_of
from lorabench.report.section import Chapter, PagePart, Report, Section, SummaryPart

_PAGE = """
<h3>Gain against drift</h3>
<p class="lead">To the right a configuration gains more on its own text; above zero it made the model worse there.</p>
{{ figure(picture) }}
"""


def _picture(report: Report) -> Picture:
    findings, colours = report.findings, colours_of(report.findings)
    panels: dict[tuple[str, str], dict[str, list[Point]]] = {}
    rows = []
    for cell in findings.drift:
        item = findings.candidate(cell.candidate)
        if item.gain is None or not item.base_bits_per_byte or not cell.base_bits_per_byte:
            continue
        by_model = panels.setdefault((cell.trained_on, cell.scored_on), {})
        by_model.setdefault(cell.model, []).append(_point(item, cell, item.gain.estimate / item.base_bits_per_byte))
        rows.append((cell.trained_on, item.label, *_words(item, cell), cell.scored_on))
    drawn = tuple(
        Panel(
            f"{trained} → {scored}",
            f"Gain on {trained} against the change on {scored}; lower and further to the right is better",
            Kind.POINTS,
            f"gained on {trained}, %",
            f"change on {scored}, %",
            tuple(Series(model, colours.get(model, 0), tuple(points)) for model, points in by_model.items()),
        )
        for (trained, scored), by_model in panels.items()
        if sum(map(len, by_model.values())) > 1
    )
    columns = ("trained on", "configuration", "change there", "change elsewhere (95 %)", "scored on")
    return Picture("gain_against_drift", "Gain against drift", drawn, columns, tuple(rows))


def _point(item: Candidate, cell: DriftCell, gain: float) -> Point:
    share = 100.0 / cell.base_bits_per_byte
    change = cell.change
    low, high = (None, None) if change.low is None or change.high is None else (change.low * share, change.high * share)
    return Point(100.0 * gain, change.estimate * share, low, high, (item.label, *_words(item, cell)))


def _words(item: Candidate, cell: DriftCell) -> tuple[str, str]:
    elsewhere = percent_and_span(cell.change, cell.base_bits_per_byte, is_signed=True)
    return relative_gain(item.gain, item.bits_per_byte), elsewhere


SECTION = Section(
    "gain_against_drift",
    705,
    page=PagePart(_PAGE, "Gain against drift"),
    summary=SummaryPart(Chapter.BEST, caption="Gain on each corpus against the change on another"),
    picture=_picture,
)
