"""`results_table.tex`: the figures of the CSV, rounded, for a paper.

pandas could write such a table too, but needs the booktabs package in every document, does not escape what LaTeX would
read as commands, and would make each report load pandas.
"""

from __future__ import annotations

import unicodedata

from lorabench.report.section import Report, in_order

LATEX_NAME = "results_table.tex"
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


def render_latex(report: Report) -> str:
    """The parts of all sections that have one, in their order."""
    parts = [section.latex(report) for section in in_order(report.sections) if section.latex is not None]
    return "\n".join(parts)
