"""Several experiments in one folder: each is a question of its own, in files and in the page's tabs."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from lorabench.core.errors import UnknownNameError
from lorabench.records.asked import Asked, write_asked
from lorabench.records.store import RecordStore
from lorabench.report.build import ReportPaths, build_report
from lorabench.report.one_page import ONE_PAGE_NAME, PDF_NAME, print_pdf
from lorabench.report.page import PAGE_NAME
from lorabench.report.summary import DETAILS_NAME, SUMMARY_NAME
from lorabench.report.table import CSV_NAME
from tests.report.browser import chromium, draw_everything, open_page
from tests.report.synthetic import SyntheticResults, Truth

HOSTILE = "</template><img src=x onerror=alert(1)>"


def fill(folder: Path) -> SyntheticResults:
    """`ranks` asks for a run of `rates` too; the third has a name that `lorabench run` would not take."""
    rates = SyntheticResults(folder, Truth(by_learning_rate={1e-4: 0.1}), num_documents=20, experiment="rates")
    shared, _ = rates.grid(ranks=[8], learning_rates=[1e-3, 1e-4], question="Which rate?")
    ranks = SyntheticResults(folder, Truth(by_rank={16: 0.1}), experiment="ranks")
    later = {"question": "Which rank?", "finished_at": "2026-11-25T12:00:00+00:00"}
    own = ranks.grid(ranks=[16, 32], learning_rates=[1e-3], **later)
    runs = {record.run_id: record.spec.dataset for record in [shared, *own]}
    write_asked(folder, Asked(name="ranks", started_at="2026-11-25T11:00:00+00:00", is_search=False, runs=runs))
    SyntheticResults(folder, experiment=HOSTILE).grid(["other"], ["<b>news</b>"], question="<i>What?</i>")
    return rates


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    folder = tmp_path_factory.mktemp("several")
    return build_report(fill(folder).store, figures=False)


def test_each_has_its_own_findings_and_its_own_folder(built: ReportPaths) -> None:
    assert built.findings is None
    assert [report.experiment for report in built.reports] == ["ranks", HOSTILE, "rates"], "the latest first"
    assert [report.findings.overview.num_runs for report in built.reports] == [3, 2, 2], "one run is of two experiments"
    folders = built.results_dir / "experiments"
    assert sorted(path.name for path in folders.iterdir()) == ["ranks", "rates"], "no folder for a name that is no name"
    with (folders / "ranks" / CSV_NAME).open(encoding="utf-8") as file:
        assert [row["experiment"] for row in csv.DictReader(file)].count("ranks") == 2
    assert "Which rank?" in (folders / "ranks" / PAGE_NAME).read_text(encoding="utf-8")
    assert "Which rate?" not in (folders / "ranks" / PAGE_NAME).read_text(encoding="utf-8")


def test_the_summary_says_each_by_itself_and_where_the_rest_is(built: ReportPaths) -> None:
    text = (built.results_dir / SUMMARY_NAME).read_text(encoding="utf-8")
    assert text.startswith("# Results\n\n3 experiments lie in this folder, each reported by itself")
    assert re.findall(r"^\*\*For (\S+) take .*rank (\d+)", text, re.MULTILINE)[0] == ("news", "32")
    for place in re.findall(r"The rest of it: \[(.*?)\]", text):
        assert (built.results_dir / place).is_file()
    assert not (built.results_dir / DETAILS_NAME).exists()


def test_a_corpus_that_was_scored_on_two_texts_is_one_corpus(built: ReportPaths) -> None:
    findings = built.reports[0].findings
    assert findings.overview.corpora == ("news",)
    assert len(findings.corpora[0].candidates) == 2, "what was scored last, 60 documents, without the run on 20"
    assert findings.overall is None
    assert any(caveat.startswith("1 earlier run scored other") for caveat in findings.corpora[0].caveats)


def test_what_was_written_of_one_experiment_goes_when_there_are_two(tmp_path: Path) -> None:
    SyntheticResults(tmp_path, experiment="first").grid(ranks=[8])
    build_report(RecordStore(tmp_path))
    assert list((tmp_path / "results" / "figures").iterdir())
    SyntheticResults(tmp_path, experiment="second").grid(ranks=[16])
    build_report(RecordStore(tmp_path))
    assert not list((tmp_path / "results" / "figures").iterdir())
    assert list((tmp_path / "results" / "experiments" / "second" / "figures").iterdir())
    assert not (tmp_path / "results" / DETAILS_NAME).exists()


def test_one_can_be_made_alone_and_others_are_named(built: ReportPaths) -> None:
    store = RecordStore(built.results_dir.parent)
    alone = build_report(store, figures=False, experiment="ranks")
    assert alone.findings is not None
    assert alone.findings.overview.num_runs == 3
    assert {path.parent for path in alone.written} == {built.results_dir / "experiments" / "ranks"}
    for unknown in ("../..", "third", HOSTILE):
        with pytest.raises(UnknownNameError, match="there are: ranks, rates"):
            build_report(store, figures=False, experiment=unknown)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)
    with chromium() as opened:
        yield opened


def question(page: Page) -> str:
    return page.locator("#recommendation .lead").inner_text()


@pytest.mark.slow
def test_tabs_are_turned_by_keyboard_and_kept(browser: Browser, built: ReportPaths) -> None:
    opened = open_page(browser, built.results_dir / PAGE_NAME)
    page = opened.page
    tabs = page.get_by_role("banner").get_by_role("tablist").get_by_role("tab")
    assert tabs.all_inner_texts() == ["ranks", HOSTILE, "rates"]
    assert tabs.evaluate_all("(all) => all.map((tab) => tab.tabIndex)") == [0, -1, -1]
    assert question(page) == "Which rank?"
    tabs.first.focus()
    page.keyboard.press("ArrowLeft")
    expect(tabs.last).to_be_focused()
    expect(tabs.last).to_have_attribute("aria-selected", "true")
    assert tabs.evaluate_all("(all) => all.map((tab) => tab.tabIndex)") == [-1, -1, 0]
    assert question(page) == "Which rate?"
    expect(page.get_by_role("tabpanel")).to_have_count(1)
    assert page.get_by_role("tabpanel", name="rates").is_visible()
    assert opened.requests == []
    page.reload()
    assert question(page) == "Which rate?", "a page that loads itself anew stays where it was"
    tabs.last.focus()
    page.keyboard.press("ArrowRight")
    assert question(page) == "Which rank?"
    assert opened.complaints == []


@pytest.mark.slow
def test_each_tab_has_its_own_runs_and_figures_and_keeps_its_state(browser: Browser, built: ReportPaths) -> None:
    opened = open_page(browser, built.results_dir / PAGE_NAME)
    page = opened.page
    page.locator("#runs-search").fill("rank 16")
    expect(page.locator("#runs-status")).to_have_text("1 to 1 of 1 run, from 3 in all")
    page.get_by_role("tab", name="rates").click()
    expect(page.locator("#runs-status")).to_have_text("1 to 2 of 2 runs")
    draw_everything(page)
    page.get_by_role("tab", name="ranks").click()
    assert page.locator("#runs-search").input_value() == "rank 16"
    expect(page.locator("#runs-status")).to_have_text("1 to 1 of 1 run, from 3 in all")
    draw_everything(page)
    page.get_by_role("tab", name="template").click()
    assert question(page) == "<i>What?</i>"
    draw_everything(page)
    assert page.locator("img, b > i").count() == 0
    ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    assert (opened.requests, opened.complaints) == ([], [])


@pytest.mark.slow
def test_the_printed_page_has_a_side_for_each(browser: Browser, built: ReportPaths) -> None:
    assert print_pdf(built.results_dir) == ""
    assert len(re.findall(rb"/Type\s*/Page\b", (built.results_dir / PDF_NAME).read_bytes())) == 3
    assert "<img" not in (built.results_dir / ONE_PAGE_NAME).read_text(encoding="utf-8")
