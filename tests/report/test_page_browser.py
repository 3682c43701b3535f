"""The page in a real browser: what a reader does with it, and what foreign text must not do to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from lorabench.records.schema import Sample, Status
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report
from lorabench.report.page import PAGE_NAME
from tests.report.browser import chromium, draw_everything, open_page
from tests.report.first_screen import report_of
from tests.report.synthetic import SyntheticResults, Truth

pytestmark = pytest.mark.slow

HOSTILE_MODEL = "<img src=x onerror=alert(1)>"
HOSTILE_CORPUS = '<b onmouseover="alert(2)">corpus & "quotes"'
HOSTILE_REASON = "</script><script>document.title='taken'</script> \u2028 <!-- %{x} {{ 7 * 7 }}"
HOSTILE_TEXT = "</dd></dl><iframe src=javascript:alert(3)></iframe> ${alert(4)} <a href=//evil.example>click</a>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)
    with chromium() as opened:
        yield opened


def page_of(results: SyntheticResults) -> Path:
    build_report(RecordStore(results.output_dir), figures=False)
    return results.output_dir / "results" / PAGE_NAME


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on three corpora, some failures: 74 runs."""
    models, datasets = ["first-model", "second-model"], ["news", "wikipedia", "medical"]
    truth = Truth(by_model={"second-model": 0.05}, by_learning_rate={1e-4: 0.04, 3e-3: 0.02}, by_rank={8: 0.004})
    results = SyntheticResults(tmp_path_factory.mktemp("usual"), truth, also_on=("news", "medical"))
    results.grid(models, datasets, [8, 16], [1e-4, 1e-3, 3e-3], [0, 1])
    results.grid(models[:1], datasets[:1], [128], [1e-2], status=Status.DIVERGED, status_reason="not finite at step 12")
    results.grid(models[:1], datasets[:1], [256], [1e-2], status=Status.OUT_OF_MEMORY, status_reason="memory ran out")
    return page_of(results)


def page_of_folder(folder: Path) -> Path:
    return report_of("48 runs", folder).results_dir / PAGE_NAME


def column(page: Page, title: str) -> list[str]:
    """The cells of one column of the table of runs, as shown."""
    heads = page.locator("#runs-table thead th").all_inner_texts()
    place = heads.index(title) + 1
    return page.locator(f"#runs-table tbody tr > :nth-child({place})").all_inner_texts()


def choose_filter(page: Page, key: str, label: str) -> None:
    page.locator(f"select[data-filter={key}]").select_option(label=label)


def test_it_is_quiet_and_asks_for_nothing(browser: Browser, usual: Path) -> None:
    opened = open_page(browser, usual)
    draw_everything(opened.page)
    assert opened.page.locator(".plot svg.main-svg").count() > 0
    assert opened.requests == []
    assert opened.complaints == []


def test_the_recommendation_is_on_the_first_screen(browser: Browser, usual: Path) -> None:
    """With the models in their order and the best of each corpus."""
    page = open_page(browser, usual, width=1280, height=800).page
    expect(page.locator("#recommendation .verdict")).to_be_in_viewport(ratio=1)
    models = page.get_by_role("region", name="base models, in short")
    expect(models).to_be_in_viewport(ratio=1)
    assert models.locator("tbody th bdi").all_inner_texts() == ["first-model", "second-model"]
    corpora = page.get_by_role("region", name="best per corpus, in short")
    expect(corpora).to_be_in_viewport(ratio=1)
    assert corpora.locator("tbody th").all_inner_texts() == ["medical", "news", "wikipedia"]
    expect(page.get_by_role("heading", name="What to do next")).to_be_in_viewport()


def test_many_models_and_corpora_fit_the_first_screen_too(browser: Browser, tmp_path: Path) -> None:
    page = open_page(browser, page_of_folder(tmp_path), width=1280, height=800).page
    expect(page.locator("#recommendation .verdict")).to_be_in_viewport(ratio=1)
    expect(page.get_by_role("region", name="base models, in short")).to_be_in_viewport(ratio=1)
    expect(page.get_by_role("region", name="best per corpus, in short")).to_be_in_viewport(ratio=1)


def test_runs_are_sorted_by_mouse_and_by_keyboard(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual).page
    page.locator("#runs-size").select_option("0")
    head = page.locator("#runs-table th", has_text="validation bits/byte").first
    head.locator("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    figures = [float(cell) for cell in column(page, "validation bits/byte") if cell != "–"]
    assert len(figures) == 72
    assert figures == sorted(figures)
    assert column(page, "validation bits/byte")[-2:] == ["–", "–"], "runs without a figure come last"
    page.keyboard.press("Enter")  # the focus stays on the head
    expect(head).to_have_attribute("aria-sort", "descending")
    figures = [float(cell) for cell in column(page, "validation bits/byte") if cell != "–"]
    assert figures == sorted(figures, reverse=True)
    assert column(page, "validation bits/byte")[-2:] == ["–", "–"]


def test_runs_are_filtered_and_counted(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual).page
    status = page.locator("#runs-status")
    expect(status).to_have_text("1 to 25 of 74 runs")
    choose_filter(page, "dataset", "news")
    expect(status).to_have_text("1 to 25 of 26 runs, from 74 in all")
    choose_filter(page, "status", "diverged")
    expect(status).to_have_text("1 to 1 of 1 run, from 74 in all")
    choose_filter(page, "status", "all")
    page.locator("#runs-search").fill("SECOND-model rank 16")
    expect(status).to_have_text("1 to 6 of 6 runs, from 74 in all")
    assert set(column(page, "model")) == {"second-model"}
    page.locator("#runs-search").fill("no such run")
    expect(status).to_have_text("0 runs, from 74 in all")


def test_pages_are_turned(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual).page
    first = column(page, "run")
    page.locator("#runs-next").click()
    assert not set(first) & set(column(page, "run"))
    page.locator("#runs-next").click()
    expect(page.locator("#runs-next")).to_be_disabled()
    assert len(column(page, "run")) == 24
    page.locator("#runs-previous").click()
    page.locator("#runs-previous").click()
    assert column(page, "run") == first


def test_columns_are_chosen(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual).page
    heads = page.locator("#runs-table thead")
    expect(heads).not_to_contain_text("modules")
    page.get_by_text("Choose columns").click()
    page.get_by_label("target modules", exact=True).check()
    expect(heads).to_contain_text("modules")
    assert set(column(page, "target modules")) == {"all-linear"}
    page.get_by_label("rank", exact=True).uncheck()
    assert "rank" not in page.locator("#runs-table thead th").all_inner_texts()


def test_a_figure_shows_what_is_chosen(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual).page
    draw_everything(page)
    figure = page.locator("figure[data-figure=rank_by_learning_rate]")
    select = figure.locator("select")
    assert select.locator("option").count() == 6

    def heights() -> list[float]:
        values: list[float] = page.evaluate(
            "() => document.querySelector('figure[data-figure=rank_by_learning_rate] .plot').data.flatMap((t) => t.y)"
        )
        return values

    before = heights()
    select.select_option(index=5)
    page.wait_for_function(
        "(first) => document.querySelector('figure[data-figure=rank_by_learning_rate] .plot').data[0].y[0] !== first",
        arg=before[0],
    )
    assert len(heights()) == len(before) == 6
    assert not set(heights()) & set(before)


def test_curves_are_chosen_in_the_table(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual).page
    draw_everything(page)
    chips = page.locator("#curves-chosen li")
    num_first = chips.count()
    assert 1 <= num_first <= 4
    page.locator("#runs-size").select_option("0")
    assert page.locator("#runs-table tbody input:checked").count() == num_first
    choose_filter(page, "status", "diverged")
    page.locator("#runs-table tbody input").check()
    expect(chips).to_have_count(num_first + 1)
    traces = page.evaluate("() => document.getElementById('curve-training').data.map((trace) => trace.x.length)")
    assert traces == [40, 3] * num_first + [0, 0], "a run that wrote no step has no curve"
    assert page.locator("#curves-table tbody td:nth-child(2)").all_text_contents() == ["40"] * num_first + ["–"]
    chips.last.get_by_role("button").click()
    expect(chips).to_have_count(num_first)
    expect(page.locator("#runs-table tbody input")).not_to_be_checked()
    choose_filter(page, "status", "all")
    for box in page.locator("#runs-table tbody input:not(:checked)").all()[:8]:
        box.click()
    expect(chips).to_have_count(8)
    expect(page.locator("#curves-status")).to_contain_text("At most 8")


def test_a_run_opens_with_its_reason_and_closes_by_keyboard(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual).page
    choose_filter(page, "status", "diverged")
    page.locator("#runs-table tbody button.id").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("not finite at step 12")
    expect(dialog).to_contain_text("rank 128")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    choose_filter(page, "status", "completed")
    page.locator("#runs-table tbody button.id").first.click()
    expect(dialog).to_contain_text("Once upon")
    dialog.get_by_role("button", name="Draw its curve").click()
    expect(dialog).not_to_be_visible()


def test_the_keyboard_reaches_the_report_first(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual).page
    page.keyboard.press("Tab")
    focused = page.evaluate("() => document.activeElement.textContent")
    assert focused == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("() => location.hash") == "#main"
    width = page.locator("#runs-search").evaluate("(box) => { box.focus(); return getComputedStyle(box).outlineWidth }")
    assert width == "2px", "what has the focus is outlined"


@pytest.mark.parametrize("width", [360, 390, 800, 1400])
def test_nothing_is_wider_than_the_window(browser: Browser, usual: Path, width: int) -> None:
    page = open_page(browser, usual, width=width).page
    draw_everything(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_it_follows_dark_and_light(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual, color_scheme="dark").page
    draw_everything(page)
    grid = ".gridlayer path.ygrid"

    def shades() -> tuple[int, int, str | None]:
        ground, ink = (
            sum(map(int, re.findall(r"\d+", page.evaluate(f"() => getComputedStyle(document.body).{name}"))))
            for name in ("backgroundColor", "color")
        )
        return ground, ink, page.locator(grid).first.get_attribute("style")

    dark_ground, dark_ink, dark_grid = shades()
    assert dark_ground < 120
    assert dark_ink > 600
    page.emulate_media(color_scheme="light")
    page.wait_for_function(
        "([grid, style]) => document.querySelector(grid).getAttribute('style') !== style", arg=[grid, dark_grid]
    )
    ground, ink, _ = shades()
    assert ground > 650
    assert ink < 150


def test_print_is_light_and_complete(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual, color_scheme="dark").page
    draw_everything(page)
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    ink = page.evaluate("() => getComputedStyle(document.body).color")
    assert sum(map(int, re.findall(r"\d+", ink))) < 150
    expect(page.locator("nav")).not_to_be_visible()
    expect(page.locator("#recommendation")).to_be_visible()
    assert page.pdf()[:5] == b"%PDF-"


def test_an_old_browser_still_reads_it(browser: Browser, usual: Path) -> None:
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(usual.as_uri())
    expect(page.locator("#runs-status")).to_have_text("1 to 25 of 74 runs")
    page.locator("#cost").scroll_into_view_if_needed()
    expect(page.locator("#cost .plot")).to_contain_text("cannot draw the figures")
    page.locator("#cost details summary").click()
    expect(page.locator("#cost details table")).to_be_visible()


def test_figures_have_words_and_tables_beside_them(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual).page
    figures = page.locator("figure[data-figure]")
    assert figures.count() >= 4
    for figure in figures.all():
        assert figure.locator("figcaption").inner_text().strip()
        expect(figure.locator(".plot")).to_have_attribute("aria-hidden", "true")
    table = page.locator("figure[data-figure=rank_by_learning_rate] details table")
    assert table.locator("tbody tr").count() == 36, "two models, three corpora, two ranks, three rates"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = SyntheticResults(
        tmp_path_factory.mktemp("hostile"), experiment='"><svg onload=alert(5)>', also_on=(HOSTILE_CORPUS,)
    )
    shared: dict[str, Any] = {
        "question": "<h1>Who?</h1>",
        "samples": (
            Sample(
                document_hash="f" * 64, prompt=HOSTILE_TEXT, continuation=HOSTILE_TEXT, base_continuation="<i>x</i>"
            ),
        ),
        "notes": (HOSTILE_REASON,),
    }
    results.grid([HOSTILE_MODEL, "plain"], [HOSTILE_CORPUS, "news"], [8, 16], [1e-4, 1e-3], [0, 1], **shared)
    results.grid(
        [HOSTILE_MODEL], ["news"], [64], status=Status.FAILED, status_reason=HOSTILE_REASON, seeds=[7], **shared
    )
    return page_of(results)


def test_foreign_text_stays_text(browser: Browser, hostile: Path) -> None:
    opened = open_page(browser, hostile)
    page = opened.page
    draw_everything(page)
    for select in page.locator("figure[data-figure] select").all():
        for index in range(select.locator("option").count()):
            select.select_option(index=index)
    choose_filter(page, "status", "failed")
    page.locator("#runs-table tbody button.id").click()
    expect(page.get_by_role("dialog")).to_contain_text("</script><script>document.title='taken'</script>")
    page.keyboard.press("Escape")
    choose_filter(page, "status", "completed")
    page.locator("#runs-search").fill("<img")
    page.locator("#runs-table tbody button.id").first.click()
    expect(page.get_by_role("dialog")).to_contain_text(HOSTILE_TEXT)
    page.keyboard.press("Escape")
    assert column(page, "model")[0] == HOSTILE_MODEL
    expect(page.locator("#failures")).to_contain_text("</script><script>document.title='taken'</script>")
    expect(page.locator("#samples")).to_contain_text(HOSTILE_TEXT)
    expect(page.locator("#recommendation")).to_contain_text("<h1>Who?</h1>")
    shown = page.locator(".plot text").all_text_contents()
    assert any(HOSTILE_MODEL[:20] in text for text in shown), "plotly shows the name as it is"
    assert page.locator("img, iframe, b, i, object, embed, a[href*='evil']").count() == 0
    assert page.locator("h1").count() == 1
    assert page.title() == '"><svg onload=alert(5)> · lorabench'
    assert opened.requests == []
    assert opened.complaints == []


def test_a_script_that_got_in_would_not_run(browser: Browser, usual: Path, tmp_path: Path) -> None:
    """The second line of defence: the content security policy, tried on a page that somebody broke on purpose."""
    broken = tmp_path / "broken.html"
    text = usual.read_text(encoding="utf-8")
    evil = (
        "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"><img src='//x.example/y'>"
    )
    broken.write_text(text.replace("</main>", f"{evil}</main>"), encoding="utf-8")
    opened = open_page(browser, broken)
    draw_everything(opened.page)
    assert opened.page.title() != "taken"
    assert len(opened.complaints) >= 3
    assert all("Content Security Policy" in complaint for complaint in opened.complaints)


def several(tmp_path: Path, name: str) -> SyntheticResults:
    """Output folders that have little to show."""
    results = SyntheticResults(tmp_path, also_on=("news",))
    if name == "one run":
        results.grid(ranks=[8])
    elif name == "all failed":
        results.grid(status=Status.FAILED, status_reason="the disk is full")
    elif name == "no per-document results":
        results = SyntheticResults(tmp_path, documents=False)
        results.grid(["a", "b"], ["news", "medical"])
    elif name == "full fine-tuning":
        results.grid(ranks=[16], adapter={"method": "full"})
    elif name == "running":
        results.grid(["a"], ["news"], [8])
        (results.store.run_dir("b_news") / "checkpoints").mkdir(parents=True)
    return results


@pytest.mark.parametrize(
    "name", ["no run", "one run", "all failed", "no per-document results", "full fine-tuning", "running"]
)
def test_little_is_shown_well(browser: Browser, tmp_path: Path, name: str) -> None:
    opened = open_page(browser, page_of(several(tmp_path, name)), width=390)
    draw_everything(opened.page)
    expect(opened.page.locator(".verdict")).to_be_visible()
    assert opened.page.locator(".verdict").inner_text().strip()
    assert opened.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert (opened.requests, opened.complaints) == ([], [])


def seconds_to_load(page: Page) -> float:
    """Of the thread that reads, lays out and runs a page, its own time: whatever else the machine is doing."""
    browser = page.context.new_cdp_session(page)
    browser.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.reload()
    page.locator("#runs-table tbody tr").first.wait_for()
    measured = {item["name"]: item["value"] for item in browser.send("Performance.getMetrics")["metrics"]}
    return float(measured["TaskDuration"])


@pytest.mark.alone
def test_two_thousand_runs_stay_quick(browser: Browser, tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, documents=False, steps=60)
    models, datasets = [f"model-{i}" for i in range(4)], [f"corpus-{i}" for i in range(4)]
    records = results.grid(models, datasets, [4, 8, 16, 32, 64], [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], range(5))
    assert len(records) == 2000
    path = page_of(results)
    assert path.stat().st_size < 6_000_000
    opened = open_page(browser, path)
    page = opened.page
    assert min(seconds_to_load(page) for _ in range(3)) < 2.0, "the least of three: a machine's speed drifts"
    expect(page.locator("#runs-status")).to_have_text("1 to 25 of 2,000 runs")
    assert page.locator("#runs-table tbody tr").count() == 25
    milliseconds = page.evaluate(
        """() => {
          const start = performance.now();
          document.querySelector("#runs-table th:nth-child(4) button").click();
          const box = document.getElementById("runs-search");
          box.value = "model-2 corpus-1";
          box.dispatchEvent(new Event("input"));
          return performance.now() - start;
        }"""
    )
    expect(page.locator("#runs-status")).to_have_text("1 to 25 of 125 runs, from 2,000 in all")
    assert milliseconds < 1000
    draw_everything(page)
    assert opened.complaints == []


def room(page: Page) -> tuple[float, float]:
    """Of the table of runs: its width, and that of the box it scrolls in."""
    width, own = page.locator("#runs-table").evaluate(
        "(table) => [table.parentElement.scrollWidth, table.parentElement.clientWidth]"
    )
    return width, own


def test_the_runs_fit_a_wide_window_and_their_numbers_stay_in_a_narrow_one(browser: Browser, usual: Path) -> None:
    page = open_page(browser, usual, width=1400).page
    expect(page.locator("#runs-table tbody tr")).to_have_count(25)
    width, own = room(page)
    assert width <= own, "nothing is cut"
    page.set_viewport_size({"width": 500, "height": 900})
    page.wait_for_function("() => document.getElementById('runs-hidden').textContent.includes('more than')")
    heads = page.locator("#runs-table thead th").all_inner_texts()
    assert heads[0] == "run"
    assert {"model", "corpus", "rank", "learning rate", "validation bits/byte", "against base"} <= set(heads)
    box, number = page.locator("#runs-table").locator(".."), page.locator("#runs-table tbody tr th").first
    before = number.bounding_box()
    box.evaluate("(box) => { box.scrollLeft = 200 }")
    assert number.bounding_box() == before, "the run's number stays"
    page.get_by_text("Choose columns").click()
    page.get_by_label("test bits/byte", exact=True).check()
    page.set_viewport_size({"width": 480, "height": 900})
    assert "test bits/byte" in page.locator("#runs-table thead th").all_inner_texts(), "what was chosen stays"
