"""Whether a model, or an adapter, does better on short or on long documents."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.analysis.facts import LengthBucket
from lorabench.core.formatting import alike, bits, count, number, size
from lorabench.report.markdown import escape, table
from lorabench.report.picture import BITS_TITLE, Kind, Panel, Picture, Point, Series, colours_of
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart

_PAGE = "<h2>By document length</h2>{{ figure(picture) }}"


def _summary(report: Report, reference: References) -> list[str]:
    rows = [
        [
            escape(bucket.corpus),
            reference(bucket.candidate),
            f"{count(bucket.low_bytes)} to {count(bucket.high_bytes)}",
            count(bucket.num_documents),
            number(bucket.perplexity),
            alike(bucket.bits_per_byte, report.findings.candidate(bucket.candidate).bits_per_byte),
            alike(bucket.base_bits_per_byte, report.findings.candidate(bucket.candidate).bits_per_byte),
        ]
        for bucket in report.findings.length_buckets
    ]
    headings = ["corpus", "", "bytes", "documents", "token perplexity", "bits per byte", "base"]
    return [Detail("### By document length"), Detail(table(headings, rows, 2))] if rows else []


def _picture(report: Report) -> Picture:
    """Bits per byte by the length of the document."""
    findings, colours = report.findings, colours_of(report.findings)
    panels = []
    for corpus in dict.fromkeys(bucket.corpus for bucket in findings.length_buckets):
        buckets = [bucket for bucket in findings.length_buckets if bucket.corpus == corpus]
        bounds = sorted({(bucket.low_bytes, bucket.high_bytes) for bucket in buckets})
        series = []
        for model in dict.fromkeys(bucket.model for bucket in buckets):
            own = [bucket for bucket in buckets if bucket.model == model]
            for name, is_base in ((model, False), (f"{model}, base", True)):
                whole = findings.candidate(own[0].candidate).bits_per_byte
                points = tuple(
                    Point(
                        bounds.index((item.low_bytes, item.high_bytes)),
                        figure,
                        lines=(
                            name,
                            f"{alike(figure, whole)} on {count(item.num_documents)} documents",
                            f"of {size(item.low_bytes)} to {size(item.high_bytes)}",
                        ),
                    )
                    for item in own
                    if (figure := item.base_bits_per_byte if is_base else item.bits_per_byte) is not None
                )
                if points:
                    series.append(Series(name, colours.get(model, 0), points, is_dashed=is_base))
        ticks = tuple((float(i), size(high)) for i, (_, high) in enumerate(bounds))
        sentence = "The best configuration of each model, and its base, by the length of the document"
        if len(bounds) > 1:
            panels.append(
                Panel(
                    *(corpus, sentence, Kind.LINES, "documents up to", BITS_TITLE, tuple(series)),
                    ticks=ticks,
                    finding=_finding(corpus, buckets),
                )
            )
    rows = tuple(
        (
            item.corpus,
            item.model,
            f"{size(item.low_bytes)} to {size(item.high_bytes)}",
            count(item.num_documents),
            alike(item.base_bits_per_byte, findings.candidate(item.candidate).bits_per_byte),
            alike(item.bits_per_byte, findings.candidate(item.candidate).bits_per_byte),
            number(item.perplexity),
        )
        for item in findings.length_buckets
    )
    columns = ("corpus", "model", "document", "documents", "base bits/byte", "bits/byte", "perplexity")
    return Picture("document_length", "By document length", tuple(panels), columns, rows)


def _finding(corpus: str, buckets: Sequence[LengthBucket]) -> str:
    """Where the first model gains most and least."""
    model = buckets[0].model
    gains = [
        (bucket.base_bits_per_byte - bucket.bits_per_byte, bucket)
        for bucket in buckets
        if bucket.model == model and bucket.base_bits_per_byte is not None
    ]
    if not gains:
        return f"{corpus} by the length of its documents; no base was scored"
    (most, first), (least, last) = max(gains, key=lambda gain: gain[0]), min(gains, key=lambda gain: gain[0])
    ends = [f"{bits(gain)} on documents of {_extent(bucket)}" for gain, bucket in ((most, first), (least, last))]
    return f"{model} gains most on {corpus}, {ends[0]}, and least, {ends[1]}"


def _extent(bucket: LengthBucket) -> str:
    return f"{size(bucket.low_bytes)} to {size(bucket.high_bytes)}"


SECTION = Section(
    "lengths",
    800,
    page=PagePart(_PAGE, "Document length"),
    summary=SummaryPart(Chapter.BEST, _summary, "Bits per byte by document length"),
    picture=_picture,
)
