"""What quantising costs the base itself, and what it saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorabench.analysis.facts import QuantizedBase
from lorabench.core.formatting import bits, figure, number, size, span
from lorabench.report.markdown import escape, table
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, PagePart, References, Report, Section, SummaryPart

HEADINGS = ("model", "corpus", "held in", "bits/byte", "against the base as it is", "95 % interval", "weights")
_INTRODUCTION = (
    "Scored before anything was trained, on validation. What an adapter gains is measured against its base as it is "
    "held; bits per byte of adapted models compare across all of them."
)
_PAGE = """
<h2>What quantising costs the base</h2>
<p class="claim"><bdi>{{ claim }}.</bdi></p>
{{ scrolling("quantised bases") }}<table>
<thead><tr>{% for heading in headings %}<th scope="col"{{ ' class=n' if loop.index0 > 2 }}>{{ heading }}</th>
{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr><th scope="row"><bdi>{{ row[0] }}</bdi></th>
{% for cell in row[1:] %}<td{{ ' class=n' if loop.index0 > 1 }}><bdi>{{ cell }}</bdi></td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p>{{ introduction }}</p>
"""


def claim(found: tuple[QuantizedBase, ...]) -> str:
    """The finding in one sentence, without a full stop."""
    worse = [base for base in found if base.difference.excludes_zero and base.difference.estimate > 0.0]
    if not worse:
        return "No quantised base can be told from the base as it is"
    most = max(worse, key=lambda base: base.difference.estimate)
    return (
        f"{len(worse)} of {len(found)} quantised bases are worse than the base as it is, at most by "
        f"{figure(most.difference)} bits per byte ({most.quantization} of {most.model} on {most.corpus})"
    )


def _row(base: QuantizedBase) -> tuple[str, ...]:
    weights = size(base.weight_bytes)
    if base.weight_bytes and base.whole_weight_bytes:
        weights += f" ({number(base.weight_bytes / base.whole_weight_bytes, 2)} of {size(base.whole_weight_bytes)})"
    return (
        base.model,
        base.corpus,
        base.quantization,
        bits(base.bits_per_byte),
        figure(base.difference, is_signed=True),
        span(base.difference, is_signed=True),
        weights,
    )


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    found = report.findings.quantized_bases
    if not found:
        return None
    rows = [_row(base) for base in found]
    return {"claim": claim(found), "headings": HEADINGS, "rows": rows, "introduction": _INTRODUCTION}


def _summary(report: Report, reference: References) -> list[str]:
    found = report.findings.quantized_bases
    if not found:
        return []
    rows = [[escape(base.model), escape(base.corpus), *_row(base)[2:]] for base in found]
    return ["### What quantising costs the base", f"{escape(claim(found))}. {_INTRODUCTION}", table(HEADINGS, rows, 3)]


SECTION = Section(
    "quantized_bases",
    210,
    page=PagePart(_PAGE, "Quantised bases", _values),
    summary=SummaryPart(Chapter.MODELS, _summary),
)
