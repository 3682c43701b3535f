"""`results_table.tex`: the results table for a paper, the figures of the CSV, rounded.

Plain `tabular`, so that it needs no package; more rows than fit on a page need `longtable`, which every LaTeX has.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from lorabench.record.columns import COLUMNS, Form
from lorabench.record.schema import RunRecord

LATEX_NAME = "results_table.tex"
MAX_TABULAR_ROWS = 45
_COLUMNS = tuple(
    COLUMNS[key]
    for key in (
        *("dataset", "model", "method", "rank", "learning_rate", "seed"),
        *("base_val_bits_per_byte", "val_bits_per_byte", "test_bits_per_byte"),
        *("tokens_per_second", "peak_memory_mb", "adapter_mb"),
    )
)
_FORMATS = {Form.COUNT: ".0f", Form.BITS: ".4f", Form.NUMBER: "g"}
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
    rows = sorted(records, key=_order)
    alignment = "".join("l" if column.form is Form.TEXT else "r" for column in _COLUMNS)
    head = " & ".join(column.short_title for column in _COLUMNS) + r" \\ \hline"
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


def _order(record: RunRecord) -> tuple[str, bool, float, str]:
    figure = None if record.validation is None else record.validation.bits_per_byte
    return record.spec.dataset, figure is None, figure or 0.0, record.run_id


def _cells(record: RunRecord) -> list[str]:
    cells = []
    for column in _COLUMNS:
        value = column.read(record)
        if column.key == "val_bits_per_byte" and value is None:
            cells.append(latex_text(record.status.value.replace("_", " ")))
        elif value is None:
            cells.append("--")
        elif isinstance(value, str):
            cells.append(latex_text(value))
        else:
            form = _FORMATS[column.form] if column.decimals is None else f".{column.decimals}f"
            cells.append(latex_text(format(value, form)))
    return cells
