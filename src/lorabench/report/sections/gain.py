"""What every configuration gains over its base, corpus by corpus, and what the best of each model gains on all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorabench.analysis.findings import Candidate, CorpusFindings, Verdict
from lorabench.analysis.statistics import Interval
from lorabench.core.formatting import alike, figure, figure_and_span, plural, relative_gain, shorten, span
from lorabench.report.far import far_of, fitted
from lorabench.report.marking import Mark, marks_of, series_of
from lorabench.report.picture import MAX_NAME, Kind, Panel, Picture, Point, Series, colours_of, interval_point
from lorabench.report.section import Chapter, PagePart, Report, Section, SummaryPart

MAX_ROWS = 30
"""Configurations of a corpus in the figure, those that gain most; the table has them all."""
_PAGE = "<h2>Gain over the base</h2>{{ figure(picture) }}"
_UNIT = "bits per byte below the base"


def _picture(report: Report) -> Picture:
    findings, colours = report.findings, colours_of(report.findings)
    marks = marks_of([item for corpus in findings.corpora for item in corpus.candidates], colours)
    panels = [_over_corpora(findings.corpora, colours)] if len(findings.corpora) > 1 else []
    panels += [fitted(_of_corpus(corpus, marks), "x") for corpus in findings.corpora]
    rows = tuple(
        (
            corpus.label,
            item.label,
            alike(item.base_bits_per_byte, item.bits_per_byte),
            figure(item.bits_per_byte),
            figure(item.gain),
            span(item.gain),
        )
        for corpus in findings.corpora
        for item in _gaining(corpus.candidates)
    )
    columns = ("corpus", "configuration", "base", "adapted", "gain", "95 % interval of the gain")
    return Picture("gain_over_base", "Gain over the base", tuple(p for p in panels if p.series), columns, rows)


def _gaining(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those whose base was scored, the largest gain first."""
    known = [(item.gain.estimate, item) for item in candidates if item.gain is not None]
    return [item for _, item in sorted(known, key=lambda pair: -pair[0])]


def _of_corpus(corpus: CorpusFindings, marks: Mapping[str, Mark]) -> Panel:
    """Every configuration, one below the other."""
    gaining = _gaining(corpus.candidates)
    shown, far = gaining[:MAX_ROWS], far_of([corpus])
    points = [
        (marks[item.key], _point(item, gain, place, is_far=item.key in far))
        for place, item in enumerate(shown)
        if (gain := item.gain) is not None
    ]
    more = f"; the {MAX_ROWS} that gain most, all are in the table" if len(gaining) > len(shown) else ""
    return Panel(
        corpus.label,
        f"What each configuration gains over its own base on validation text, with 95 % intervals{more}",
        Kind.ROWS,
        _UNIT,
        "",
        series_of(points),
        ticks=tuple((float(place), shorten(marks[item.key].whole, MAX_NAME)) for place, item in enumerate(shown)),
        finding=_finding(corpus.label, gaining, marks),
        least_x=(0.0, 0.0),
    )


def _finding(corpus: str, gaining: Sequence[Candidate], marks: Mapping[str, Mark]) -> str:
    if not gaining:
        return ""
    first = gaining[0]
    num = sum(item.versus_base is Verdict.LOWER for item in gaining)
    told = f"{num} of {plural(len(gaining), 'configuration')} detectably" if len(gaining) > 1 else ""
    most = f"{marks[first.key].whole} gains {figure(first.gain)} bits per byte on {corpus}"
    share = relative_gain(first.gain, first.bits_per_byte)
    return f"{most} ({share}){', the most; ' + told + ' gain' if told else ''}"


def _point(item: Candidate, gain: Interval, place: int, *, is_far: bool) -> Point:
    return Point(gain.estimate, place, gain.low, gain.high, (item.label, *_words(item)), is_far=is_far)


def _words(item: Candidate) -> tuple[str, str]:
    return figure_and_span(item.gain, is_signed=True), relative_gain(item.gain, item.bits_per_byte)


def _over_corpora(corpora: Sequence[CorpusFindings], colours: Mapping[str, int]) -> Panel:
    """What the best configuration of each model gains, by corpus."""
    found = [
        (position, corpus, item)
        for position, corpus in enumerate(corpora)
        for item in _first_of_each_model(corpus)
        if item.gain is not None
    ]
    series = [
        Series(
            model,
            colours.get(model, 0),
            tuple(
                interval_point(position, item.gain, item.label, corpus.label, *_words(item))
                for position, corpus, item in found
                if item.model == model and item.gain is not None
            ),
        )
        for model in dict.fromkeys(item.model for _, _, item in found)
    ]
    ticks = tuple((float(place), shorten(corpus.label, MAX_NAME)) for place, corpus in enumerate(corpora))
    sentence = "What the best configuration of each model gains over its own base on validation text; higher is better"
    ranked = sorted(found, key=lambda one: -one[2].gain.estimate if one[2].gain is not None else 0.0)
    ends = [f"{relative_gain(item.gain, item.bits_per_byte)} on {corpus.label}" for _, corpus, item in ranked]
    finding = f"Against its base the best of each model is at {ends[-1]} to {ends[0]}" if ends else ""
    return Panel("all corpora", sentence, Kind.BARS, "", _UNIT, tuple(series), ticks=ticks, finding=finding)


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
