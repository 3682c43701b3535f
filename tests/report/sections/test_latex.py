from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lorabench.records.schema import Status
from lorabench.report.latex import latex_text
from lorabench.report.sections.runs import latex_table
from lorabench.report.table import csv_rows
from tests.report.synthetic import SyntheticResults

COMMANDS = re.compile(
    r"\\(?:textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|ldots)\{\}|\\[{}$&#_%]|\$-\$"
)


@given(st.text())
def test_no_text_is_a_command(text: str) -> None:
    rest = COMMANDS.sub("", latex_text(text))
    assert not set("\\$&#_%~^\n") & set(rest)
    depth = 0
    for character in rest:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert 0 <= depth <= 1
    assert depth == 0
    assert all(character <= "\u017f" for character in rest)


def test_what_starts_a_row_does_not_change_the_one_before() -> None:
    assert latex_text("[8pt] *x").startswith("{[}")
    assert latex_text("*") == "{*}"
    assert latex_text("a--b") == "a{-}{-}b"
    assert latex_text("naïve 名") == "naïve {[}U+540D]"


def test_the_figures_are_those_of_the_csv(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    records = results.grid(["model_1"], ["news", "100 % code"], [8, 16])
    records += results.grid(["model_1"], ["news"], [32], status=Status.OUT_OF_MEMORY, status_reason="too large")
    table = latex_table(records)
    rows = [line.removesuffix(r" \\").split(" & ") for line in table.splitlines() if line.endswith(r" \\")]
    assert {len(row) for row in rows} == {12}
    by_key = {(row[0], row[3]): row for row in rows}
    for values in csv_rows(records):
        row = by_key[latex_text(values["dataset"]), str(values["rank"])]
        assert row[1] == r"model\_1"
        if values["val_bits_per_byte"] is None:
            assert row[7:9] == ["out of memory", "--"]
        else:
            assert row[6:9] == [
                f"{values[key]:.4f}" for key in ("base_val_bits_per_byte", "val_bits_per_byte", "test_bits_per_byte")
            ]


def test_long_tables_break_over_pages(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, documents=False)
    few, many = results.grid(seeds=range(20)), results.grid(seeds=range(25))
    assert r"\begin{tabular}" in latex_table(few)
    assert r"\begin{longtable}" in latex_table(many)
    assert latex_table(many).count(r"\endhead") == 1
    assert latex_table([]).count("\\\\") == 1, "a head and no rows"
