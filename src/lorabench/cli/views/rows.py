"""Rows of values: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorabench.core.formatting import rough_size


def print_json(values: Any) -> None:
    """One line of JSON."""
    print(json.dumps(values, ensure_ascii=False, allow_nan=False))


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool = False) -> None:
    """A table of the given columns; as JSON all that the rows hold."""
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(column, row[column]) for column in columns))
    wide_console().print(table)


def wide_console() -> Console:
    """A console as wide as its terminal; where there is none, wide enough that nothing is folded."""
    console = Console()
    return console if console.is_terminal else Console(width=240)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column.endswith("_bytes"):
        return rough_size(value)
    return f"{value:,}" if isinstance(value, int) else escape(str(value))
