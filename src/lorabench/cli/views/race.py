"""A rung of a search as a table: on a terminal, and as plain lines elsewhere."""

from __future__ import annotations

from rich.table import Table

from lorabench.cli.views.text import styled
from lorabench.core.formatting import bits, span
from lorabench.runs.race import Decision


def race_table(decision: Decision) -> Table:
    """All configurations side by side, the lowest first; why one leaves, the line of its run says."""
    num_going_on = sum(row.goes_on for row in decision.rows)
    title = f"{decision.corpus}, {decision.where}: {num_going_on} of {len(decision.rows)} go on"
    table = Table(box=None, pad_edge=False, header_style="dim", title=styled(title, "bold"), title_justify="left")
    table.add_column("configuration")
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("bits/byte", justify="right", no_wrap=True)
    table.add_column("95 %", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in decision.rows:
        style = "" if row.goes_on else "dim"
        table.add_row(
            styled(row.label, style),
            styled(row.num_seeds, style),
            styled(bits(row.bits_per_byte), style),
            styled(span(row.interval), style),
            styled("goes on", "green") if row.goes_on else styled("leaves", style),
        )
    return table
