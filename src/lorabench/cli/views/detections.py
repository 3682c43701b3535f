"""Prints what a plan's design could detect."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from lorabench.analysis.designs import Detection
from lorabench.analysis.detectable import Reach
from lorabench.cli.views.plan import plain_table
from lorabench.cli.views.rows import wide_console
from lorabench.core.formatting import NONE, number, rough_size


def print_detections(detections: Sequence[Detection]) -> None:
    """A line for each corpus; nothing where there is nothing to compare."""
    compared = [detection for detection in detections if detection.num_candidates > 1]
    if not compared:
        return
    console = wide_console()
    console.print("\nTrue differences that would be detected 80 times in a hundred, in bits per byte:\n")
    wanted = next((detection.reach.difference for detection in compared if detection.reach), None)
    best = {f"best of {detection.num_candidates}" for detection in compared}
    headings = ["corpus", "scored", "documents", "one pair", best.pop() if len(best) == 1 else "the best", "two models"]
    table = plain_table(*headings, "spread", *([f"for {wanted:g}"] if wanted else []))
    for item in compared:
        table.add_row(
            escape(item.corpus),
            rough_size(item.num_bytes),
            f"{'' if item.are_lengths_known else '≈ '}{item.num_documents:,}",
            number(item.configurations, 2),
            number(item.best, 2),
            number(item.models, 2),
            "measured" if item.is_measured else "assumed",
            *([_show_reach(item.reach)] if wanted else []),
        )
    console.print(table)
    if not all(item.is_measured for item in compared):
        console.print("note: an assumed spread is that of other corpora; here it may be 3 times as large, or as small")
    if any(item.num_seeds == 1 for item in compared):
        console.print("note: with one seed a difference holds on that seed alone; another may order them otherwise")


def _show_reach(reach: Reach | None) -> str:
    if reach is None:
        return NONE
    if reach.is_reached:
        return "reached"
    ways = [f"{rough_size(reach.num_bytes)} of text"] if reach.num_bytes else []
    ways += [f"{reach.num_seeds} seeds"] if reach.num_seeds else []
    return (" and " if reach.needs_both else " or ").join(ways) or "more than the corpus holds"
