"""What adapters cost on corpora they were not trained on."""

from __future__ import annotations

import itertools

from lorabench.analysis.findings import Findings, Verdict
from lorabench.core.formatting import NONE, alike, figure, figure_and_span, shorten, span
from lorabench.report.markdown import escape, table
from lorabench.report.picture import MAX_NAME, Matrix, Picture
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart

MAX_ROWS = 8
"""Of the table that stands in the summary itself."""
_PAGE = "<h2>Drift on other corpora</h2>{{ figure(picture) }}"


def _summary(report: Report, reference: References) -> list[str]:
    findings = report.findings
    if not findings.drift:
        return []
    columns = list(dict.fromkeys(cell.scored_on for cell in findings.drift))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for cell in findings.drift:
        mark = {Verdict.LOWER: "better", Verdict.HIGHER: "worse"}.get(cell.verdict, cell.verdict.value)
        shown = f"{figure_and_span(cell.change, is_signed=True)}, {mark}"
        rows.setdefault((cell.model, cell.trained_on, cell.candidate), {})[cell.scored_on] = shown
    lines = [
        [escape(model), escape(corpus), reference(key), *(cells.get(name, NONE) for name in columns)]
        for (model, corpus, key), cells in rows.items()
    ]
    grid = table(["model", "trained on", "", *(escape(name) for name in columns)], lines, 3)
    num_worse = sum(cell.verdict is Verdict.HIGHER for cell in findings.drift)
    num_better = sum(cell.verdict is Verdict.LOWER for cell in findings.drift)
    return [
        "### Drift: trained on × scored on",
        "Adapted minus base, in bits per byte, on corpora the adapter was not trained on; positive is worse. "
        f"Worse in {num_worse} of {len(findings.drift)} cases, better in {num_better}.",
        grid if len(lines) <= MAX_ROWS else Detail(grid),
    ]


def _picture(report: Report) -> Picture:
    """What adapters cost on corpora they were not trained on."""
    findings = report.findings
    panels = []
    for model, cells in itertools.groupby(sorted(findings.drift, key=lambda c: c.model), key=lambda c: c.model):
        by_place = {(cell.trained_on, cell.scored_on): cell for cell in cells}
        rows = tuple(sorted({trained for trained, _ in by_place}, key=lambda name: _place(name, findings)))
        columns = tuple(sorted({scored for _, scored in by_place}, key=lambda name: _place(name, findings)))
        grid = [[by_place.get((row, column)) for column in columns] for row in rows]
        panels.append(
            Matrix(
                model,
                "Change of bits per byte against the base; above zero the adapter made the model worse there",
                "scored on",
                "trained on",
                tuple(shorten(row, MAX_NAME) for row in rows),
                tuple(shorten(column, MAX_NAME) for column in columns),
                tuple(tuple(cell.change.estimate if cell else None for cell in line) for line in grid),
                tuple(tuple(figure(cell.change, is_signed=True) if cell else "" for cell in line) for line in grid),
                tuple(
                    tuple(
                        (f"{cell.trained_on} → {cell.scored_on}", span(cell.change, is_signed=True), cell.verdict.value)
                        if cell
                        else ()
                        for cell in line
                    )
                    for line in grid
                ),
            )
        )
    words = {Verdict.LOWER: "better", Verdict.HIGHER: "worse"}
    rows_shown = tuple(
        (
            cell.model,
            cell.trained_on,
            cell.scored_on,
            alike(cell.base_bits_per_byte, cell.change),
            alike(cell.bits_per_byte, cell.change),
            figure(cell.change, is_signed=True),
            span(cell.change, is_signed=True),
            words.get(cell.verdict, cell.verdict.value),
        )
        for cell in findings.drift
    )
    shown = ("model", "trained on", "scored on", "base", "adapted", "change", "95 % interval", "verdict")
    return Picture("drift", "Drift on other corpora", tuple(panels), shown, rows_shown)


def _place(name: str, findings: Findings) -> tuple[int, str]:
    """Corpora in the order of the findings, then any others by name."""
    labels = [corpus.label for corpus in findings.corpora]
    return (labels.index(name) if name in labels else len(labels)), name


SECTION = Section(
    "drift",
    700,
    page=PagePart(_PAGE, "Drift"),
    summary=SummaryPart(Chapter.BEST, _summary, "Drift on other corpora"),
    picture=_picture,
)
