"""What every configuration gains on its own corpus against what it costs on another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lorabench.analysis.findings import Candidate, DriftCell, Verdict
from lorabench.core.formatting import percent_and_span, plural, relative_gain
from lorabench.report.far import far_of, fitted
from lorabench.report.marking import Mark, marks_of, series_of
from lorabench.report.picture import Kind, Panel, Picture, Point, colours_of
from lorabench.report.section import Chapter, PagePart, Report, Section, SummaryPart

_PAGE = """
<h3>Gain against drift</h3>
<p class="lead">To the right a configuration gains more on its own text; above zero it made the model worse there.</p>
{{ figure(picture) }}
"""


def _picture(report: Report) -> Picture:
    findings, colours = report.findings, colours_of(report.findings)
    marks = marks_of([item for corpus in findings.corpora for item in corpus.candidates], colours)
    panels: dict[tuple[str, str], list[tuple[Candidate, DriftCell]]] = {}
    for cell in findings.drift:
        item = findings.candidate(cell.candidate)
        if item.gain is not None and item.base_bits_per_byte and cell.base_bits_per_byte:
            panels.setdefault((cell.trained_on, cell.scored_on), []).append((item, cell))
    far = far_of(findings.corpora)
    drawn = tuple(
        fitted(_panel(trained, scored, found, marks, far), "xy")
        for (trained, scored), found in panels.items()
        if found[1:]
    )
    rows = tuple(
        (trained, item.label, *_words(item, cell), scored)
        for (trained, scored), found in panels.items()
        for item, cell in found
    )
    columns = ("trained on", "configuration", "change there", "change elsewhere (95 %)", "scored on")
    return Picture("gain_against_drift", "Gain against drift", drawn, columns, rows)


def _panel(
    trained: str,
    scored: str,
    found: Sequence[tuple[Candidate, DriftCell]],
    marks: Mapping[str, Mark],
    far: Collection[str],
) -> Panel:
    points = [(marks[item.key], _point(item, cell, marks[item.key].text, far)) for item, cell in found]
    return Panel(
        f"{trained} → {scored}",
        f"Gain on {trained} against the change on {scored}; lower and further to the right is better",
        Kind.POINTS,
        f"gained on {trained}, %",
        f"change on {scored}, %",
        series_of(points),
        finding=_finding(scored, found, marks),
    )


def _finding(scored: str, found: Sequence[tuple[Candidate, DriftCell]], marks: Mapping[str, Mark]) -> str:
    """How many lose elsewhere, and what the ones that gain most and that cost least come to."""
    num_worse = sum(cell.verdict is Verdict.HIGHER for _, cell in found)
    most = max(found, key=lambda pair: pair[0].gain.estimate if pair[0].gain is not None else 0.0)
    least = min(found, key=lambda pair: pair[1].change.estimate)
    worse = f"{num_worse} of {plural(len(found), 'configuration')} are worse on {scored}"
    first, second = (f"{marks[item.key].whole} {_change(cell)}" for item, cell in (most, least))
    if most is least:
        return f"{worse}; {first}, which gains most and costs least"
    return f"{worse}; {first}, which gains most, and {second}, which costs least"


def _change(cell: DriftCell) -> str:
    return percent_and_span(cell.change, cell.base_bits_per_byte, is_signed=True).partition(" (")[0]


def _point(item: Candidate, cell: DriftCell, text: str, far: Collection[str]) -> Point:
    assert item.gain is not None
    assert item.base_bits_per_byte is not None
    share, change = 100.0 / cell.base_bits_per_byte, cell.change
    low, high = (None, None) if change.low is None or change.high is None else (change.low * share, change.high * share)
    gain = 100.0 * item.gain.estimate / item.base_bits_per_byte
    about = item.label, *_words(item, cell)
    return Point(gain, change.estimate * share, low, high, about, text, is_far=item.key in far)


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
