"""What `evaluate` and `compare` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lorabench.analysis.findings import Verdict
from lorabench.cli.views.rows import wide_console
from lorabench.cli.views.text import clean
from lorabench.core.formatting import alike, bits, count, number, with_interval
from lorabench.runs.comparison import PairComparison


def print_figures(result: Mapping[str, Any]) -> None:
    """All figures of one model on one text, one a line."""
    for key, value in result.items():
        shown = f"{value:,.6g}" if isinstance(value, float) else "–" if value is None else str(value)
        print(f"{key.replace('_', ' '):26} {shown}")


def print_figures_table(results: Sequence[Mapping[str, Any]]) -> None:
    """Several: a line for each adapter on each text."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("adapter", "text", "documents", "bytes", "bits/byte", "perplexity"):
        table.add_column(title, justify="left" if title in ("adapter", "text") else "right", overflow="fold")
    for result in results:
        table.add_row(
            Text(clean(_short(result["adapter"]))),
            Text(clean(result["data"])),
            count(result["num_documents"]),
            count(result["num_bytes"]),
            bits(result["bits_per_byte"]),
            number(result["token_perplexity"]),
        )
    console = wide_console()
    console.print(Text(clean(f"{results[0]['model']}, {results[0]['precision']}"), style="bold"))
    console.print(table)


def _short(adapter: str | None) -> str:
    """Of a run the run: all of them end with `adapter`."""
    if adapter is None:
        return "none"
    path = Path(adapter)
    return path.parent.name if path.name == "adapter" and path.parent.name else adapter


def print_comparison(found: PairComparison) -> None:
    """The two figures, their difference, and what that comes to."""
    interval = found.difference
    shown, span = with_interval(interval, is_signed=True)
    words = {
        Verdict.LOWER: f"{found.first} is lower",
        Verdict.HIGHER: f"{found.second} is lower",
        Verdict.NOT_COMPARED: f"not compared: {interval.note}",
    }
    has_note = interval.low is not None and bool(interval.note)
    lines = [
        f"on {found.text}, {interval.num_documents} documents, in bits per byte (lower is better)",
        f"  {alike(found.first_bits_per_byte, interval)}  {found.first}",
        f"  {alike(found.second_bits_per_byte, interval)}  {found.second}",
        f"  {shown}  the first minus the second (95 %: {span})",
        words.get(found.verdict, found.verdict.value) + (f", {interval.note}" if has_note else ""),
    ]
    console = wide_console()
    for line in lines:
        console.print(Text(clean(line)), soft_wrap=True)
