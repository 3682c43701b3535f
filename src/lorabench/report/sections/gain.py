"""What the best configuration of each model gains over its base, by corpus."""

from __future__ import annotations

from lorabench.analysis.findings import Candidate, CorpusFindings
from lorabench.core.formatting import alike, figure, figure_and_span, shorten, span
from lorabench.report.picture import MAX_NAME, Kind, Panel, Picture, Series, colours_of, interval_point
from lorabench.report.section import Chapter, PagePart, Report, Section, SummaryPart

_PAGE = "<h2>Gain over the base</h2>{{ figure(picture) }}"


def _picture(report: Report) -> Picture:
    """What the best configuration of each model gains over the untouched base, by corpus."""
    findings, colours = report.findings, colours_of(report.findings)
    found = [
        (position, corpus, item, item.gain)
        for position, corpus in enumerate(findings.corpora)
        for item in _first_of_each_model(corpus)
        if item.gain is not None
    ]
    series = [
        Series(
            model,
            colours.get(model, index),
            tuple(
                interval_point(position, gain, item.label, corpus.label, figure_and_span(gain, is_signed=True))
                for position, corpus, item, gain in found
                if item.model == model
            ),
        )
        for index, model in enumerate(dict.fromkeys(item.model for _, _, item, _ in found))
    ]
    ticks = tuple((float(i), shorten(corpus.label, MAX_NAME)) for i, corpus in enumerate(findings.corpora))
    title = "bits per byte below the base"
    sentence = "What the best configuration of each model gains over its own base on validation text; higher is better"
    panel = Panel("all corpora", sentence, Kind.BARS, "", title, tuple(series), ticks=ticks)
    rows = tuple(
        (
            corpus.label,
            item.label,
            alike(item.base_bits_per_byte, item.bits_per_byte),
            figure(item.bits_per_byte),
            figure(gain),
            span(gain),
        )
        for _, corpus, item, gain in found
    )
    columns = ("corpus", "configuration", "base", "adapted", "gain", "95 % interval of the gain")
    return Picture("gain_over_base", "Gain over the base", (panel,) if series else (), columns, rows)


def _first_of_each_model(corpus: CorpusFindings) -> list[Candidate]:
    first: dict[str, Candidate] = {}
    for item in corpus.candidates:
        first.setdefault(item.model, item)
    return list(first.values())


SECTION = Section(
    "gain",
    600,
    page=PagePart(_PAGE, "Gain over the base"),
    summary=SummaryPart(Chapter.BEST, caption="Gain over the base on each corpus, with intervals"),
    picture=_picture,
)
