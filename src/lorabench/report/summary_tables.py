"""Tables of the summary that several of its parts share: comparisons, the values of an axis, what runs take."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.analysis.findings import AxisFindings, Comparison, Findings
from lorabench.formatting import NONE, bits, count, millions, number, signed_bits, size, span
from lorabench.report.markdown import bullets, escape, table

MAX_CANDIDATES = 12
"""Shown of one corpus; the results table holds them all."""


class References:
    """Short names for candidates, given in the order in which they are mentioned."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def __call__(self, key: str) -> str:
        return self.names.setdefault(key, f"c{len(self.names) + 1}")


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    rows = [
        [
            f"{escape(item.first)} − {escape(item.second)}",
            signed_bits(item.difference.estimate) if item.difference else NONE,
            span(item.difference, is_signed=True),
            NONE if item.adjusted_p is None else "< 0.0001" if item.adjusted_p < 1e-4 else f"{item.adjusted_p:.4f}",
            item.verdict.value + (f" ({escape(item.reason)})" if item.reason else ""),
        ]
        for item in comparisons
    ]
    return table(["comparison", "difference", "95 % interval", "corrected p", "verdict"], rows)


def configuration_part(findings: Findings, reference: References) -> list[str]:
    parts = ["## 4. LoRA configuration analysis"]
    groups = (
        ("Rank", findings.ranks, "Only one rank was tried, so ranks cannot be compared."),
        ("Learning rate", findings.learning_rates, "Only one learning rate was tried, so rates cannot be compared."),
        ("Other settings", findings.other_axes, ""),
    )
    for title, axes, otherwise in groups:
        if axes or otherwise:
            parts.append(f"### {title}")
        parts += [part for axis in axes for part in axis_section(findings, axis, reference)] if axes else [otherwise]
    return parts


def axis_section(findings: Findings, axis: AxisFindings, reference: References) -> list[str]:
    rows = [
        [
            escape(level.shown),
            reference(level.candidate) if level.candidate else NONE,
            escape(findings.candidate(level.candidate).label) if level.candidate else "no comparable result",
            str(level.num_candidates),
            bits(level.bits_per_byte.estimate) if level.bits_per_byte else NONE,
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
    where = f"{escape(axis.model)} on {escape(axis.corpus)}" if axis.model else escape(axis.corpus)
    heading = f"**{axis.title.capitalize()}: {where}.**"
    return [
        f"{heading} {escape(axis.claim)}.",
        table(headings, rows, 3),
        *([comparison_table(axis.comparisons)] if axis.comparisons else []),
        bullets(axis.caveats) if axis.caveats else "",
    ]


def efficiency_part(findings: Findings, reference: References) -> list[str]:
    title = "## 5. Training efficiency"
    if not findings.efficiency:
        return [title, "No run has a result yet."]
    parts = [
        title,
        "Medians over seeds; compare only within one table. Tokens per second are comparable within one tokenizer, "
        "bytes per second between models. On a front is what no other configuration beats in quality and that cost.",
    ]
    places = dict.fromkeys((point.corpus, point.hardware, point.precision) for point in findings.efficiency)
    for corpus, hardware, precision in places:
        points = [
            item
            for item in findings.efficiency
            if (item.corpus, item.hardware, item.precision) == (corpus, hardware, precision)
        ]
        rows = [
            [
                reference(point.candidate),
                escape(findings.candidate(point.candidate).label),
                bits(point.bits_per_byte),
                count(point.cost.tokens_per_second),
                count(point.cost.bytes_per_second),
                number(point.cost.train_seconds, 3),
                size(point.cost.peak_memory_bytes),
                size(point.cost.adapter_bytes),
                millions(point.cost.trainable_parameters),
                _fronts(
                    (point.on_speed_front, "speed"), (point.on_memory_front, "memory"), (point.on_size_front, "size")
                ),
            ]
            for point in points[:MAX_CANDIDATES]
        ]
        headings = [
            "",
            "configuration",
            "bits per byte",
            "tokens/s",
            "bytes/s",
            "training, s",
            "peak memory",
            "adapter",
        ]
        parts += [
            f"**{escape(corpus)}, {escape(hardware)}, {escape(precision)}**",
            table([*headings, "trainable", "on the front of"], rows, 2),
        ]
        more = len(points) - len(rows)
        parts.append(f"… and {more} more configurations." if more > 0 else "")
    return parts


def _fronts(*fronts: tuple[bool, str]) -> str:
    return ", ".join(name for is_on, name in fronts if is_on)
