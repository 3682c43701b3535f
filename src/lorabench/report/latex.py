"""`results_table.tex`: the results table for a paper, the figures of the CSV, rounded.

Plain `tabular`, so that it needs no package; more rows than fit on a page need `longtable`, which every LaTeX has.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from lorabench.record.schema import RunRecord
from lorabench.report.table import csv_rows

LATEX_NAME = "results_table.tex"
MAX_TABULAR_ROWS = 45
_COLUMNS = (
    ("dataset", "corpus", "l", ""),
    ("model", "model", "l", ""),
    ("method", "method", "l", ""),
    ("rank", "rank", "r", "d"),
    ("learning_rate", "rate", "r", "g"),
    ("seed", "seed", "r", "d"),
    ("base_val_bits_per_byte", "base", "r", ".4f"),
    ("val_bits_per_byte", "validation", "r", ".4f"),
    ("test_bits_per_byte", "test", "r", ".4f"),
    ("tokens_per_second", "tokens/s", "r", ".0f"),
    ("peak_memory_mb", "memory (MB)", "r", ".0f"),
    ("adapter_mb", "adapter (MB)", "r", ".1f"),
)
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "…": r"\ldots{}",
    "’": "'",
} | {character: f"\\{character}" for character in "{}$&#_%"}


def latex_text(text: str) -> str:
    """`text` as LaTeX prints it; characters beyond what every installation has are named by their number."""
    return "".join(_character(character) for character in text)


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isspace():
        return " "
    if " " <= character <= "~" or _is_accented_latin(character):
        # braces keep two hyphens from becoming a dash, and a row that begins with [ or * from changing the one before
        return f"{{{character}}}" if character in "-`'?![*" else character
    return f"{{[}}U+{ord(character):04X}]"


def _is_accented_latin(character: str) -> bool:
    """Whether LaTeX's default font has it: a letter with one accent other than an ogonek, or one of a few others."""
    parts = unicodedata.normalize("NFD", character)
    is_accented = len(parts) == 2 and parts[0] <= "z" and parts[1] != "\u0328"
    return character <= "\u017f" and (is_accented or character in "ÆæØøßŒœŁłı")


def latex_table(records: Sequence[RunRecord]) -> str:
    """A row for every run, by corpus, the lowest validation figure first; a run without one shows its state instead."""
    rows = sorted(csv_rows(records), key=_order)
    alignment = "".join(align for _, _, align, _ in _COLUMNS)
    head = " & ".join(title for _, title, _, _ in _COLUMNS) + r" \\ \hline"
    lines = [" & ".join(_cells(row)) + r" \\" for row in rows]
    name = "tabular" if len(rows) <= MAX_TABULAR_ROWS else "longtable"
    note = "" if name == "tabular" else r", with \usepackage{longtable} in the preamble"
    comments = (
        f"% Made by lorabench from the records; include it with \\input{{{LATEX_NAME}}}{note}.",
        "% Base, validation and test are in bits per byte.",
    )
    repeated = r" \endhead" if name == "longtable" else ""
    begin, end = f"\\begin{{{name}}}{{{alignment}}} \\hline", f"\\hline \\end{{{name}}}"
    return "\n".join((*comments, begin, head + repeated, *lines, end, ""))


def _order(row: dict[str, Any]) -> tuple[str, bool, float, str]:
    figure = row["val_bits_per_byte"]
    return row["dataset"], figure is None, figure or 0.0, row["run_id"]


def _cells(row: dict[str, Any]) -> list[str]:
    cells = []
    for key, _, _, form in _COLUMNS:
        value = row[key]
        if key == "val_bits_per_byte" and value is None:
            cells.append(latex_text(str(row["status"]).replace("_", " ")))
        elif value is None:
            cells.append("--")
        else:
            cells.append(latex_text(format(value, form)) if form else latex_text(str(value)))
    return cells
