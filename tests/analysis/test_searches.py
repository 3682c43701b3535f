"""What is said of searches: each apart from the others, and that what was stopped early was compared with nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lorabench.analysis.analyse import analyse
from lorabench.analysis.findings import Findings
from lorabench.experiment.search import SearchBudget, SearchSettings
from lorabench.records.schema import Rung, RunRecord, Status
from lorabench.report.build import build_report
from lorabench.report.page_figures import figures_payload
from lorabench.report.picture import Panel
from tests.report.synthetic import SyntheticResults, Truth

HALVING = SearchSettings(strategy="halving", rungs=(1 / 9, 1 / 3))


def analysed(results: SyntheticResults) -> Findings:
    return analyse(results.store.read_all()[0], results.store)


def searched(results: SyntheticResults, search: SearchSettings = HALVING, **axes: Any) -> list[RunRecord]:
    """Runs of a search that reached its first rung; stopped there unless `axes` say otherwise."""
    found = []
    for record in results.grid(**{"status": Status.STOPPED_EARLY, "status_reason": "beaten", **axes}, search=search):
        assert record.validation is not None
        rung = Rung(
            share=search.shares[0],
            step=4,
            own_steps=1,
            train_tokens_seen=100,
            validation=record.validation,
            documents="documents/validation.parquet",
            documents_sha256="0" * 64,
        )
        found.append(record.model_copy(update={"rungs": (rung,)}))
        results.store.write(found[-1])
    return found


def test_two_searches_on_one_corpus_are_two_and_an_extended_one_is_one(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    searched(results, ranks=[8, 16])
    searched(results, ranks=[32], status=Status.COMPLETED, status_reason=None)
    racing = SearchSettings(strategy="racing", rungs=(1 / 3,))
    searched(results, racing, ranks=[64], learning_rates=[1e-4, 1e-3], seeds=[0, 1])
    larger = HALVING.model_copy(update={"budget": SearchBudget(runs=4), "keep": 2})
    searched(results, larger, ranks=[128])
    halving, other = analysed(results).searches
    assert (halving.strategy, halving.num_tried, halving.num_finished) == ("halving", 4, 1)
    assert (other.strategy, other.num_tried, other.num_finished, other.shares) == ("racing", 2, 0, (1 / 3,))
    assert halving.corpus == "news (halving, rungs at 0.111, 0.333)"
    assert other.corpus == "news (racing, rungs at 0.333)"
    build_report(results.store)
    summary = (tmp_path / "results" / "results_summary.md").read_text(encoding="utf-8")
    assert all(f"### The search on {item.corpus}" in summary.replace("\\", "") for item in (halving, other))


def test_what_was_stopped_early_is_told_apart_on_the_page(tmp_path: Path) -> None:
    """One name in the legend, and behind all that finished in the table, however low its figure at a rung is."""
    results = SyntheticResults(tmp_path, Truth(by_rank={16: 0.05}, noise=0.005))
    searched(results, ranks=[8, 16, 32])
    whole = searched(
        results, ranks=[16], learning_rates=[3e-3], seeds=[0, 1], status=Status.COMPLETED, status_reason=None
    )
    report = build_report(results.store, figures=False).reports[0]
    assert [record.status for record in report.ordered] == [Status.COMPLETED] * 2 + [Status.STOPPED_EARLY] * 3
    assert report.findings.overview.varied == ("rank", "learning_rate"), "what was stopped early was tried too"
    assert report.findings.searches[0].claim == "Found by search: 4 tried, 1 finished (halving)"
    page = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    assert "<li>Found by search: 4 tried, 1 finished (halving)" in re.sub(r"</?bdi>|\n", "", page)
    (panel,) = next(item for item in report.pictures if item.name == "search").panels
    assert isinstance(panel, Panel)
    names = [series.name for series in panel.series]
    lowest = min(whole, key=lambda record: record.validation.bits_per_byte if record.validation else 9.0)
    assert set(names) == {"rank 16, rate 0.003, seed 0", "rank 16, rate 0.003, seed 1", "stopped early"}
    assert panel.finding.startswith(
        f"Lowest at the end, of 2 runs, is rank 16, rate 0.003, seed {lowest.spec.seed}, with"
    )
    assert [text for _, text in panel.ticks] == ["11.1 %", "the end"]
    drawn = figures_payload(report.pictures)["search"][0]["data"]
    assert [trace.get("showlegend", True) for trace in drawn if trace["name"] == "stopped early"] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("num_finished", [1, 2])
def test_what_a_search_stopped_is_said_where_nothing_was_compared_with_it(tmp_path: Path, num_finished: int) -> None:
    results = SyntheticResults(tmp_path, Truth(by_rank={8: 0.1}, noise=0.005))
    finished = [32, 8][:num_finished]
    searched(results, ranks=finished, seeds=[0, 1, 2], status=Status.COMPLETED, status_reason=None)
    searched(results, ranks=[2, 4], learning_rates=[1e-4, 1e-3], seeds=[0, 1, 2])
    searched(results, ranks=[32], learning_rates=[1e-4], seeds=[0, 1, 2])
    findings = analysed(results)
    (choice,) = findings.recommendations
    stopped = "A search stopped 5 other configurations early"
    assert stopped in choice.claim
    assert choice.is_decided == (num_finished == 2)
    expected = "all that a search left" if num_finished == 1 else "the best, beyond chance, of those finished"
    assert choice.standing == expected
    (ranks,) = findings.ranks
    assert ranks.is_answered == (num_finished == 2)
    said = ranks.claim if num_finished == 1 else " ".join(ranks.caveats)
    assert ("a search stopped early what was tried with 2 and 4" in said) == (num_finished == 1)
    assert ("since a search stopped it early: 2 and 4" in said) == (num_finished == 2)


def test_without_a_search_one_result_has_nothing_to_compare_with(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path)
    results.grid(ranks=[8])
    results.grid(ranks=[16], status=Status.FAILED, status_reason="broke")
    (choice,) = analysed(results).recommendations
    assert choice.standing == "nothing to compare with"


def test_that_more_training_did_not_help_is_said(tmp_path: Path) -> None:
    """Where a figure at a rung is lower than every figure at an end, and only there."""
    results = SyntheticResults(tmp_path, Truth(by_rank={4: -0.05, 16: 0.05}))
    (stopped,) = searched(results, ranks=[8])
    (ended,) = searched(results, ranks=[16], status=Status.COMPLETED, status_reason=None)
    assert stopped.validation is not None
    assert ended.validation is not None
    figures = f"{stopped.validation.bits_per_byte:.4f} against {ended.validation.bits_per_byte:.4f} bits per byte"
    sentence = (
        rf"No run ended as low as .*rank 8.*, seed 0, was after 0\.111 of its steps: {re.escape(figures)}, so less"
    )
    assert re.fullmatch(sentence + ".*", analysed(results).searches[0].turned)
    build_report(results.store)
    for name in ("results_summary.md", "report.html"):
        assert "No run ended as low as" in (tmp_path / "results" / name).read_text(encoding="utf-8")
    searched(results, ranks=[4], learning_rates=[3e-3], status=Status.COMPLETED, status_reason=None)
    assert analysed(results).searches[0].turned == ""
