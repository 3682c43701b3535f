"""Pictures of the report for the documentation: `bash scripts/make_screenshots.sh`.

A seeded synthetic experiment is shown unless an output folder is given, so that the pictures can be made anywhere.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from lorabench.records.schema import Sample, Status
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report
from lorabench.report.page import PAGE_NAME
from tests.report.browser import chromium, draw_everything, open_page
from tests.report.synthetic import SyntheticResults, Truth

SHOTS = (
    # file, window, colour scheme, what the window is scrolled to
    ("report_top.png", (1280, 860), "light", "#recommendation"),
    ("report_rank.png", (1280, 760), "dark", "#settings"),
    ("report_runs.png", (1280, 760), "light", "#runs"),
    ("report_phone.png", (390, 844), "light", "#recommendation"),
)


def example(output_dir: Path) -> None:
    """Three models on three corpora, three ranks at three rates, three seeds, and two failures."""
    models, datasets = ["smollm2-135m", "gpt2", "pythia-410m"], ["news", "medical", "python-code"]
    truth = Truth(
        by_model={"smollm2-135m": 0.0, "gpt2": 0.09, "pythia-410m": 0.03},
        by_dataset={"news": 0.0, "medical": 0.12, "python-code": -0.2},
        by_learning_rate={3e-4: 0.022, 1e-3: 0.0, 3e-3: 0.014},
        by_rank={8: 0.006, 16: 0.001},
        seed_deviation=0.001,
    )
    results = SyntheticResults(output_dir, truth, num_documents=200, also_on=("news", "medical"), experiment="example")
    continuation = Sample(
        document_hash="f" * 64,
        prompt="The council met on Tuesday to decide whether the bridge",
        base_continuation=" is the the most of the most of the",
        continuation=" should be closed to lorries before the winter, and put the question off until March.",
    )
    shared = {
        "question": "Which base model, and does the rank matter once the rate is tuned?",
        "samples": (continuation,),
    }
    results.grid(models, datasets, [8, 16, 32], [3e-4, 1e-3, 3e-3], [0, 1, 2], **shared)
    for rank, status, reason in (
        (64, Status.OUT_OF_MEMORY, "out of memory at micro-batch 1"),
        (128, Status.DIVERGED, "the loss was not finite at step 31"),
    ):
        results.grid(["pythia-410m"], ["news"], [rank], [1e-2], status=status, status_reason=reason, **shared)


def take(browser: Browser, page_path: Path, folder: Path) -> None:
    """Every picture, of the window as a reader sees it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (width, height), scheme, place in SHOTS:
        page = open_page(browser, page_path, width, height, color_scheme=scheme, reduced_motion="reduce").page
        draw_everything(page)
        page.locator(place).evaluate("(element) => element.scrollIntoView()")
        if place == "#recommendation":
            page.evaluate("() => scrollTo(0, 0)")
        page.wait_for_timeout(300)
        page.screenshot(path=folder / name)
        print(f"{folder / name}: {(folder / name).stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output-dir", type=Path, help="results to show instead of the synthetic ones")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        output_dir = chosen.output_dir or Path(temporary)
        if chosen.output_dir is None:
            example(output_dir)
        build_report(RecordStore(output_dir), figures=False)
        take(browser, output_dir / "results" / PAGE_NAME, chosen.folder)


if __name__ == "__main__":
    main()
