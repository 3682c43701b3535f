"""For whoever cannot see the page: names, roles and contrast by axe-core, on folders of every kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from lorabench.core.storage import sha256_file
from lorabench.records.asked import Asked, write_asked
from lorabench.records.deployment import DeploymentRecord, DeploymentStore, Round
from lorabench.records.schema import Status
from lorabench.report.build import build_report
from lorabench.report.page import PAGE_NAME
from tests.report.browser import Opened, chromium, draw_everything, open_page
from tests.report.synthetic import ENVIRONMENT, SyntheticResults, Truth

pytestmark = pytest.mark.slow

AXE = Path(__file__).parent / "axe" / "node_modules" / "axe-core" / "axe.min.js"
HOSTILE = '<img src=x onerror=alert(1)> & "names"'


def several_models(results: SyntheticResults) -> None:
    results.grid(["a", "b", "c"], ["news", "medical"], [8, 16], [1e-3, 3e-3])


def during_a_run(results: SyntheticResults) -> None:
    ended = results.grid(ranks=[8, 16])
    begun = results.grid(ranks=[32], status=Status.CANCELLED)
    runs = {record.run_id: record.spec.dataset for record in (*ended, *begun)} | {"queued": "news"}
    write_asked(
        results.output_dir, Asked(name="synthetic", started_at="2026-11-24T12:00:00", is_search=False, runs=runs)
    )


def stopped_early(results: SyntheticResults) -> None:
    results.grid(ranks=[8])
    results.grid(ranks=[16, 32], status=Status.STOPPED_EARLY, status_reason="another one was better at a third")
    results.grid(ranks=[64], status=Status.DIVERGED, status_reason="not finite at step 12")


def deployed(results: SyntheticResults) -> None:
    """One form, which scores what the adapter scores."""
    (run,) = results.grid(ranks=[8])
    store = DeploymentStore(results.output_dir)
    folder = store.form_dir(run.run_id, "merged:fp32")
    folder.mkdir(parents=True)
    shutil.copy(results.store.run_dir(run.run_id) / "documents" / "validation.parquet", folder)
    timed = Round(
        load_seconds=1.0,
        resident_bytes=1_000_000,
        peak_bytes=1_000_000,
        ttft_seconds_128=0.1,
        ttft_seconds_512=None,
        prefill_tokens_per_second=100.0,
        decode_tokens_per_second=10.0,
        decode_tokens_per_second_8=None,
    )
    store.write(
        DeploymentRecord(
            run_id=run.run_id,
            form="merged:fp32",
            engine="transformers",
            status=Status.COMPLETED,
            disk_bytes=540_000_000,
            validation=run.validation,
            rounds=(timed,),
            environment=ENVIRONMENT,
            measured_at="2026-11-24T13:00:00+00:00",
            files={"validation.parquet": sha256_file(folder / "validation.parquet")},
        )
    )


def several_experiments(results: SyntheticResults) -> None:
    results.grid(ranks=[8])
    SyntheticResults(results.output_dir, experiment="another").grid(ranks=[16, 32])


FOLDERS: dict[str, Callable[[SyntheticResults], object]] = {
    "one run": lambda results: results.grid(ranks=[8]),
    "one model": lambda results: results.grid(ranks=[8, 16], learning_rates=[1e-3, 3e-3], seeds=[0, 1]),
    "many models": several_models,
    "during a run": during_a_run,
    "stopped early": stopped_early,
    "deployments": deployed,
    "several experiments": several_experiments,
    "hostile names": lambda results: results.grid([HOSTILE, "plain"], [HOSTILE], [8, 16]),
}
SHOWS = {
    "during a run": "2 of 4 runs of synthetic have ended, 2 to come",
    "stopped early": "1 diverged, 2 stopped early",
    "deployments": "Ship merged:fp32",
    "several experiments": "another",
    "hostile names": HOSTILE,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert AXE.is_file(), "axe-core is not here: run bash scripts/install_axe.sh"
    expect.set_options(timeout=60_000)
    with chromium() as opened:
        yield opened


def opened_folder(browser: Browser, folder: Path, name: str, **window: Any) -> Opened:
    results = SyntheticResults(folder, Truth(by_rank={8: 0.02}), also_on=("wiki",))
    FOLDERS[name](results)
    build_report(results.store, figures=False, running="synthetic" if name == "during a run" else "")
    return open_page(browser, folder / "results" / PAGE_NAME, **window)


def violations(page: Page) -> list[str]:
    """What axe-core calls more than minor, with the first places of each.

    Its rule on regions takes a tab's panel, which has a name, for text outside of the landmarks within it.
    """
    options = {"resultTypes": ["violations"], "rules": {"region": {"enabled": False}}}
    found = page.evaluate("(options) => axe.run(document, options)", options)
    return [
        f"{item['id']}: {item['help']} ({[node['html'][:120] for node in item['nodes'][:3]]})"
        for item in found["violations"]
        if item["impact"] != "minor"
    ]


@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_keeps_anyone_out(browser: Browser, tmp_path: Path, name: str) -> None:
    opened = opened_folder(browser, tmp_path, name)
    page = opened.page
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert SHOWS.get(name, "") in page.locator("body").inner_text()
    page.evaluate("() => { for (const part of document.querySelectorAll('details')) part.open = true }")
    assert violations(page) == []
    page.locator("#runs-table tbody button.id").first.click()
    assert violations(page) == [], "in the details of a run, beside which nothing can be reached"
    assert (opened.requests, opened.complaints) == ([], [])


def test_nor_in_the_dark_nor_on_a_phone_nor_what_is_drawn(browser: Browser, tmp_path: Path) -> None:
    page = opened_folder(browser, tmp_path, "one model", width=390, color_scheme="dark").page
    draw_everything(page)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert violations(page) == []
    page.locator("#runs-search").evaluate("(box) => box.parentElement.replaceWith(box)")
    page.locator("#runs-search").evaluate("(box) => box.removeAttribute('placeholder')")
    assert any(found.startswith("label:") for found in violations(page)), "axe-core found nothing where it must"
