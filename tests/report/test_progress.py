"""A page that is made while runs are still to come knows it: how many, which, and no verdict or advice too early."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from lorabench.analysis.race import Race, Racer, write_races
from lorabench.analysis.statistics import Interval
from lorabench.records.asked import FOLDER, Asked, write_asked
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import RecordStore
from lorabench.report.build import ReportPaths, build_report
from tests.report.synthetic import SyntheticResults, Truth


def asked_of(records: Sequence[RunRecord], *more: str, is_search: bool = False) -> Asked:
    runs = {record.run_id: record.spec.dataset for record in records} | dict.fromkeys(more, "news")
    name = records[0].experiment
    return Asked(name=name, started_at="2026-11-24T12:00:00+00:00", is_search=is_search, runs=runs)


def page_of(paths: ReportPaths) -> str:
    return (paths.results_dir / "report.html").read_text(encoding="utf-8").split("<script")[0]


@pytest.fixture
def results(tmp_path: Path) -> SyntheticResults:
    return SyntheticResults(tmp_path, Truth(by_rank={8: 0.05}))


def build(results: SyntheticResults, running: str = "") -> ReportPaths:
    return build_report(RecordStore(results.output_dir), figures=False, running=running)


def test_verdict_and_advice_wait_for_what_is_planned(results: SyntheticResults) -> None:
    records = results.grid(ranks=[8, 16], seeds=[0, 1, 2])
    write_asked(results.output_dir, asked_of(records))
    whole = build(results).findings
    assert whole is not None
    assert whole.recommendations[0].is_decided
    assert any("learning rates" in step for step in whole.next_steps)

    write_asked(results.output_dir, asked_of(records, "queued-1", "queued-2"))
    paths = build(results, "synthetic")
    findings = paths.findings
    assert findings is not None
    assert not findings.recommendations[0].is_decided
    assert findings.recommendations[0].standing == "so far: the best, beyond chance"
    assert findings.next_steps == ("Wait for what is planned: 2 runs of synthetic have not ended yet",)
    page, summary = page_of(paths), (paths.results_dir / "results_summary.md").read_text(encoding="utf-8")
    assert "6 of 8 runs of synthetic have ended, 2 to come" in page
    assert "6 of 8 runs of synthetic have ended, 2 to come." in summary
    assert "Only one learning rate" not in summary, "another may be among those to come"
    assert "queued-1" in page
    assert 'id="reload"' in page
    assert 'id="reload"' not in page_of(build(results))


def test_an_interruption_is_no_failure(results: SyntheticResults) -> None:
    records = results.grid(ranks=[8, 16]) + results.grid(ranks=[32], status=Status.CANCELLED)
    write_asked(results.output_dir, asked_of(records))
    page = page_of(build(results))
    assert "2 of 3 runs of synthetic have ended, 1 to come, 1 of them interrupted; the same command goes on" in page
    assert "--retry failed" not in page
    results.grid(ranks=[64], status=Status.DIVERGED)
    assert "--retry failed" in page_of(build(results))


def test_what_a_search_left_out_is_missing_only_while_it_runs(results: SyntheticResults) -> None:
    write_asked(results.output_dir, asked_of(results.grid(), "left-out", is_search=True))
    assert 'id="progress"' not in page_of(build(results))
    assert "2 of at most 3 runs" in page_of(build(results, "synthetic"))


def test_what_was_begun_and_has_no_record_is_not_queued(results: SyntheticResults) -> None:
    """A search pauses its runs at a rung; a run that was killed has checkpoints and no record either."""
    write_asked(results.output_dir, asked_of(results.grid(), "paused-1", "paused-2", "queued-1", is_search=True))
    for name in ("paused-1", "paused-2"):
        results.store.checkpoints_dir(name).mkdir(parents=True)
    page = page_of(build(results, "synthetic"))
    assert "2 of at most 5 runs of synthetic have ended, 3 to come, 2 of them paused." in "".join(page.split("</bdi>"))
    assert "At most 3 runs of synthetic have not ended yet" in page
    assert "<summary>Paused: 2" in page
    stopped = page_of(build(results))
    assert "3 to come, 2 of them interrupted; the same command goes on with it" in stopped


@pytest.mark.parametrize("content", [b"", b"[]", b'{"name": "../x"}', b"\xff", b"[" * 9999])
def test_a_damaged_list_is_named_and_the_rest_goes_on(results: SyntheticResults, content: bytes) -> None:
    results.grid()
    folder = results.output_dir / FOLDER
    folder.mkdir()
    (folder / "synthetic.json").write_bytes(content)
    paths = build(results)
    assert any("synthetic.json: it is no list" in problem for problem in paths.problems)
    assert 'id="progress"' not in page_of(paths)


def test_a_list_under_another_name_is_not_believed(results: SyntheticResults) -> None:
    write_asked(results.output_dir, asked_of(results.grid(), "queued"))
    (results.output_dir / FOLDER / "synthetic.json").rename(results.output_dir / FOLDER / "other.json")
    assert any("it is the list of synthetic" in problem for problem in build(results).problems)


def test_the_page_shows_how_a_rung_stands(results: SyntheticResults) -> None:
    write_asked(results.output_dir, asked_of(results.grid(), "run-a", "run-b", "run-c", is_search=True))
    interval = Interval(1.1234, 1.1, 1.15, 40, 2)
    racers = (
        Racer("rank 8, <b>", ("run-a",), 1, 1.1234, interval, None),
        Racer("rank 4", ("run-b",), 0, None, None, None),
        Racer("rank 2", ("run-c",), 1, 2.5, None, "stopped at rung 1 of 3: too high"),
    )
    write_races(results.output_dir, "synthetic", [Race("news", "rung 2 of 3", racers)])
    page = page_of(build(results, "synthetic"))
    rows = [" ".join(re.sub("<[^>]*>", " ", row).split()) for row in page.split("rung 2 of 3: ")[1].split("<tr>")[2:5]]
    assert "rung 2 of 3: 1 of 2 scored" in " ".join(page.split())
    assert rows[0] == "rank 8, &lt;b&gt; 1/1 1.1234 1.100 to 1.150 scored"
    assert rows[1] == "rank 4 0/1 – – to come"
    assert rows[2].startswith("rank 2 1/1 2.5000 – stopped at rung 1 of 3: too high")
    (results.output_dir / "races/synthetic.json").write_text('[{"corpus": 3}]', encoding="utf-8")
    assert "rung 2 of 3" not in page_of(build(results, "synthetic"))
