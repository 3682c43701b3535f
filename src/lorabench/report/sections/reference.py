"""What was measured here beside results from elsewhere: published ones, or one's own earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lorabench.analysis.beside_reference import Beside, beside_reference
from lorabench.core.formatting import NONE, count, figure_and_span, plural, training
from lorabench.experiment.reference_results import ReferenceResult, ReferenceResults
from lorabench.report.markdown import bullets, escape, table
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart

MAX_ROWS = 12
"""Of a table that stands in the summary itself."""
_LEAD = (
    "Figures from elsewhere as they were given, and beside them what was measured here of the same model, corpus, "
    "method and rank: the configuration with the lowest validation figure, with its 95 % interval. Neither text nor "
    "machine is known to be the same, so a row says how far its figures lie apart, not which is better, and rows are "
    "no ranking"
)
_FIGURES: dict[str, tuple[str, Callable[[Beside], str]]] = {
    "val_perplexity": ("perplexity", lambda beside: figure_and_span(beside.perplexity)),
    "val_bits_per_byte": ("bits/byte", lambda beside: figure_and_span(beside.candidate.bits_per_byte)),
    "tokens_per_second": ("tokens/s", lambda beside: count(beside.candidate.cost.tokens_per_second)),
}
"""Figure of a result -> title, and how what was measured of it is written."""
_PAGE = """
<h2>Beside results from elsewhere</h2>
<p class="lead">{{ lead }}.</p>
{% for one in shown %}
<h3><bdi>{{ one.title }}</bdi></h3>
{% if one.note %}<p><bdi>{{ one.note }}</bdi>.</p>{% endif %}
{% if one.left_open %}<p>What it leaves open:</p>{{ caveats(one.left_open) }}{% endif %}
{% if one.rows %}{{ data_table(one.title, one.headings, one.cells) }}{% endif %}
<p class="note">{{ one.extent }}.</p>
{% endfor %}
"""


class Row(NamedTuple):
    """The cells of one result that something was measured of."""

    what: tuple[str, ...]
    """Outside text, as is `how`."""
    figures: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class Shown:
    """One reference, as page and summary have it."""

    title: str
    note: str
    left_open: tuple[str, ...]
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    extent: str
    """Of how many of its results something was measured here."""

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """Of the table."""
        return [(*row.what, *row.figures, row.how) for row in self.rows]


def shown_of(report: Report) -> list[Shown]:
    """The references that experiments brought, or that the report was given."""
    return [_shown(reference, report) for reference in report.references]


def _shown(reference: ReferenceResults, report: Report) -> Shown:
    records = {record.run_id: record for record in report.records}
    matches = [beside_reference(result, report.findings, records) for result in reference.results]
    given = [name for name in _FIGURES if any(name in result.figures for result in reference.results)]
    pairs = [heading for name in given for heading in (f"{_FIGURES[name][0]} there", f"{_FIGURES[name][0]} here")]
    num_measured = sum(bool(match) for match in matches)
    return Shown(
        reference.title,
        reference.note.rstrip("."),
        tuple(sentence.rstrip(".") for sentence in reference.left_open),
        ("model and method", "corpus", *pairs, "what was measured here"),
        tuple(_row(beside, given) for match in matches for beside in match),
        f"Measured here: {count(num_measured)} of {plural(len(matches), 'result')}",
    )


def _row(beside: Beside, given: Sequence[str]) -> Row:
    result, item, trained = beside.result, beside.candidate, beside.candidate.trained
    figures: list[str] = []
    for name in given:
        there = result.figures.get(name)
        figures += [NONE if there is None else f"{there:,g}", _FIGURES[name][1](beside)]
    how = [item.label + (f", the lowest of {count(beside.num_candidates)}" if beside.num_candidates > 1 else "")]
    if trained is not None:
        how += [training(trained.train_bytes, trained.epochs, trained.steps, trained.seconds)]
    how += [f"on {item.cost.hardware}, {item.cost.precision}"]
    corpus = item.corpus + (f" ({result.note})" if result.note else "")
    return Row((f"{result.model}, {_method(result)}", corpus), tuple(figures), "; ".join(how))


def _method(result: ReferenceResult) -> str:
    return result.method if result.rank is None else f"{result.method}, rank {count(result.rank)}"


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    shown = shown_of(report)
    return {"lead": _LEAD, "shown": shown} if shown else None


def _summary(report: Report, reference: References) -> Sequence[str]:
    shown = shown_of(report)
    blocks = ["### Beside results from elsewhere", f"{_LEAD}."] if shown else []
    for one in shown:
        note = f" {escape(one.note)}." if one.note else ""
        lines = [[*map(escape, row.what), *row.figures, escape(row.how)] for row in one.rows]
        grid = table(one.headings, lines, len(one.headings)) if lines else ""
        leaves = " It leaves open:" if one.left_open else ""
        blocks += [f"**{escape(one.title)}**:{note} {one.extent}.{leaves}", bullets(one.left_open)]
        blocks += [grid if len(lines) <= MAX_ROWS else Detail(grid)]
    return blocks


SECTION = Section(
    "reference",
    1150,
    page=PagePart(_PAGE, "Results from elsewhere", _values),
    summary=SummaryPart(Chapter.OVERVIEW, _summary),
)
