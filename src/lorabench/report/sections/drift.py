"""What adapters cost on corpora they were not trained on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from lorabench.analysis.findings import Candidate, DriftCell, Findings, Verdict
from lorabench.core.formatting import NONE, alike, figure, percent_and_span, plural, relative_gain, shorten, span
from lorabench.report.markdown import escape, table
from lorabench.report.picture import MAX_NAME, Matrix, Picture
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart

MAX_ROWS = 8
"""Of the table that stands in the summary itself."""
MAX_DETAILED = 60
"""Configurations in the whole table, the lowest of each corpus first."""
_PAGE = "<h2>Drift on other corpora</h2>{{ figure(picture) }}"


def _summary(report: Report, reference: References) -> list[str]:
    findings = report.findings
    if not findings.drift:
        return []
    columns = list(dict.fromkeys(cell.scored_on for cell in findings.drift))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell in findings.drift:
        mark = {Verdict.LOWER: "better", Verdict.HIGHER: "worse"}.get(cell.verdict, cell.verdict.value)
        shown = f"{percent_and_span(cell.change, cell.base_bits_per_byte, is_signed=True)}, {mark}"
        rows.setdefault((cell.trained_on, cell.candidate), {})[cell.scored_on] = shown
    lines = [
        [escape(corpus), reference(key), escape(item.label), _gain_of(item), *(cells.get(n, NONE) for n in columns)]
        for (corpus, key), cells in rows.items()
        for item in [findings.candidate(key)]
    ]
    headings = ["trained on", "", "configuration", "there", *(f"on {escape(name)}" for name in columns)]
    grid = table(headings, lines[:MAX_DETAILED], 4)
    num_worse = sum(cell.verdict is Verdict.HIGHER for cell in findings.drift)
    num_better = sum(cell.verdict is Verdict.LOWER for cell in findings.drift)
    return [
        "### Drift: trained on × scored on",
        "Change of bits per byte against the base, on corpora the adapter was not trained on; above zero is worse. "
        f"Worse in {num_worse} of {len(findings.drift)} cases, better in {num_better}.",
        grid if len(lines) <= MAX_ROWS else Detail(grid),
        Detail(f"… and {len(lines) - MAX_DETAILED} more configurations." if len(lines) > MAX_DETAILED else ""),
    ]


def _picture(report: Report) -> Picture:
    """What adapters cost on corpora they were not trained on."""
    findings = report.findings
    panels = []
    best = sorted((cell for cell in findings.drift if cell.is_best_of_model), key=lambda cell: cell.model)
    for model, cells in itertools.groupby(best, key=lambda cell: cell.model):
        by_place = {(cell.trained_on, cell.scored_on): cell for cell in cells}
        rows = tuple(sorted({trained for trained, _ in by_place}, key=lambda name: _place(name, findings)))
        columns = tuple(sorted({scored for _, scored in by_place}, key=lambda name: _place(name, findings)))
        grid = [[by_place.get((row, column)) for column in columns] for row in rows]
        panels.append(
            Matrix(
                model,
                "What each corpus's best adapter changes, in bits per byte; above zero it made the model worse there",
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
                _finding([cell for line in grid for cell in line if cell is not None]),
            )
        )
    words = {Verdict.LOWER: "better", Verdict.HIGHER: "worse"}
    rows_shown = tuple(
        (
            findings.candidate(cell.candidate).label,
            cell.trained_on,
            cell.scored_on,
            alike(cell.base_bits_per_byte, cell.change),
            alike(cell.bits_per_byte, cell.change),
            figure(cell.change, is_signed=True),
            span(cell.change, is_signed=True),
            percent_and_span(cell.change, cell.base_bits_per_byte, is_signed=True),
            words.get(cell.verdict, cell.verdict.value),
        )
        for cell in findings.drift
    )
    shown = ("configuration", "trained on", "scored on", "base", "adapted", "change", "95 % interval", "%", "verdict")
    return Picture("drift", "Drift on other corpora", tuple(panels), shown, rows_shown)


def _finding(cells: Sequence[DriftCell]) -> str:
    """In how many cases a model's best adapters cost something elsewhere, and where most."""
    worst = max(cells, key=lambda cell: cell.change.estimate)
    num_worse = sum(cell.verdict is Verdict.HIGHER for cell in cells)
    most = percent_and_span(worst.change, worst.base_bits_per_byte, is_signed=True)
    where = f"trained on {worst.trained_on} and scored on {worst.scored_on}"
    return f"Worse than the base in {num_worse} of {plural(len(cells), 'case')}; at most {most}, {where}"


def _gain_of(item: Candidate) -> str:
    """What a configuration changes on its own corpus: `−17 %`."""
    return relative_gain(item.gain, item.bits_per_byte)


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
