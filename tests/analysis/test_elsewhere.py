"""A recommendation says what it costs elsewhere, and where that is more than it gains, which is the better trade."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from lorabench.analysis.analyse import analyse
from lorabench.analysis.findings import Findings
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report
from lorabench.report.headline import headline_of
from lorabench.report.page import PAGE_NAME
from lorabench.report.summary import SUMMARY_NAME
from lorabench.report.table import CSV_NAME
from tests.report.synthetic import SyntheticResults, Truth


def grid(tmp_path: Path, elsewhere: dict[int, float], datasets: tuple[str, ...] = ("tickets",)) -> SyntheticResults:
    """Rank 32 gains 17 % of the base's 1.2 bits per byte on its own corpus, rank 8 gains 15 %."""
    truth = Truth(base=1.2, gain=0.204, by_rank={8: 0.024}, noise=0.002, elsewhere=elsewhere)
    results = SyntheticResults(tmp_path, truth, num_documents=80, also_on=("news", "code"))
    results.grid(datasets=list(datasets), ranks=[8, 32], seeds=[0, 1, 2])
    return results


def analysed(results: SyntheticResults) -> Findings:
    return analyse(results.store.read_all()[0], results.store)


def test_what_loses_more_elsewhere_than_it_gains_is_named_with_the_better_trade(tmp_path: Path) -> None:
    findings = analysed(grid(tmp_path, {8: 0.06, 32: 0.36}))
    (choice,) = findings.recommendations
    assert findings.candidate(choice.candidates[0]).settings["rank"] == 32
    trade, cost = choice.elsewhere
    assert re.search(r"it loses 3[01].%, more than it gains \(1[78].%\)", trade), trade
    assert "rank 8" in trade
    assert "gains 15" in trade
    assert re.search(r"loses at most 5\.\d", trade), trade
    assert re.match(r"Elsewhere it costs 3[01]", cost), cost
    assert "on news" in cost
    assert "on code" in cost
    assert trade in headline_of(findings).reasons[:3], "it stands on the first screen"


def test_a_cost_that_the_gain_outweighs_is_said_and_no_more(tmp_path: Path) -> None:
    (choice,) = analysed(grid(tmp_path, {8: 0.06, 32: 0.06})).recommendations
    (cost,) = choice.elsewhere
    assert cost.count("5") >= 2, cost
    assert cost.startswith("Elsewhere it costs")


def test_where_all_lose_none_is_called_better(tmp_path: Path) -> None:
    (choice,) = analysed(grid(tmp_path, {8: 0.40, 32: 0.36})).recommendations
    assert choice.elsewhere[0].endswith("no other that gains is a better trade")


def test_over_all_corpora_it_is_said_after_which_text(tmp_path: Path) -> None:
    overall = analysed(grid(tmp_path, {8: 0.06, 32: 0.36}, ("tickets", "letters"))).overall
    assert overall is not None
    assert " after tickets it loses" in overall.elsewhere[0] or " after letters it loses" in overall.elsewhere[0]
    assert "rank 8" in overall.elsewhere[0]


def test_every_configuration_has_its_cost_in_table_and_summary(tmp_path: Path) -> None:
    results = grid(tmp_path, {8: 0.06, 32: 0.36})
    paths = build_report(RecordStore(tmp_path), figures=False)
    with (paths.results_dir / CSV_NAME).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_rank = {row["rank"]: row for row in rows}
    assert float(by_rank["8"]["worst_change_elsewhere"]) == pytest.approx(0.05, abs=0.01)
    assert float(by_rank["32"]["worst_change_elsewhere"]) == pytest.approx(0.30, abs=0.02)
    assert "news +0.3" in by_rank["32"]["changes_elsewhere"]
    assert "code +0.3" in by_rank["32"]["changes_elsewhere"]
    cells = analysed(results).drift
    assert {(cell.scored_on, cell.is_best_of_model) for cell in cells} == {
        (name, best) for name in ("news", "code") for best in (True, False)
    }
    summary = (paths.results_dir / SUMMARY_NAME).read_text(encoding="utf-8")
    drift = summary.split("### Drift: trained on × scored on")[1].split("###")[0]
    assert drift.count("worse |") == 4, drift
    page = (paths.results_dir / PAGE_NAME).read_text(encoding="utf-8")
    assert "elsewhere:news" in page
    assert "Gain against drift" in page
