"""Tables of the summary that several sections share: comparisons, and the values of an axis."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.analysis.findings import AxisFindings, Comparison, Findings
from lorabench.core.formatting import NONE, figure, span
from lorabench.report.markdown import bullets, escape, table
from lorabench.report.section import References

MAX_CANDIDATES = 12
"""Shown of one corpus; the results table holds them all."""


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Each difference with its interval, corrected p and verdict."""
    rows = [
        [
            f"{escape(item.first)} − {escape(item.second)}",
            figure(item.difference, is_signed=True),
            span(item.difference, is_signed=True),
            NONE if item.adjusted_p is None else "< 0.0001" if item.adjusted_p < 1e-4 else f"{item.adjusted_p:.4f}",
            item.verdict.value + (f" ({escape(item.reason)})" if item.reason else ""),
        ]
        for item in comparisons
    ]
    return table(["comparison", "difference", "95 % interval", "corrected p", "verdict"], rows)


def axis_blocks(findings: Findings, axis: AxisFindings, reference: References) -> list[str]:
    """What was found of one setting: the claim, its values at their best, their comparisons, and what limits them."""
    rows = [
        [
            escape(level.shown),
            reference(level.candidate) if level.candidate else NONE,
            escape(findings.candidate(level.candidate).label) if level.candidate else "no comparable result",
            str(level.num_candidates),
            figure(level.bits_per_byte),
            span(level.bits_per_byte),
            str(len(findings.candidate(level.candidate).seeds)) if level.candidate else NONE,
            "yes" if level.is_tied_best and axis.is_answered else "",
        ]
        for level in axis.levels
    ]
    headings = [
        axis.title,
        "",
        "at its best",
        "chosen among",
        "bits per byte",
        "95 % interval",
        "seeds",
        "best or tied",
    ]
    return [
        f"**{axis.title.capitalize()}: {_where(axis)}.** {escape(axis.claim)}.",
        table(headings, rows, 3),
        *([comparison_table(axis.comparisons)] if axis.comparisons else []),
        bullets(axis.caveats) if axis.caveats else "",
    ]


def axis_line(axis: AxisFindings) -> str:
    """The claim alone, as an item of a list."""
    return f"- **{axis.title.capitalize()}: {_where(axis)}.** {escape(axis.claim)}."


def _where(axis: AxisFindings) -> str:
    return f"{escape(axis.model)} on {escape(axis.corpus)}" if axis.model else escape(axis.corpus)
