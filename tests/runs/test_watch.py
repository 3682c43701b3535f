"""`lorabench watch` beside a real run, each a process of its own, over HTTP and in the browser."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from lorabench.report.page import PAGE_NAME
from tests.report.browser import chromium
from tests.runs.conftest import ExperimentWriter

pytestmark = pytest.mark.slow
SECONDS = 240.0


@contextmanager
def lorabench(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lorabench", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(path: Path) -> None:
    until = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.1)


def test_the_page_follows_a_run_to_its_end(experiment: ExperimentWriter, tmp_path: Path) -> None:
    output = tmp_path / "out"
    long = {"learning_rate": 0.02, "batch_size": 1, "context_length": 32, "train_bytes": 6000, "epochs": 8}
    path = experiment(adapter={"rank": [2, 4, 8]}, training={**long, "precision": "fp32"})
    with lorabench("run", str(path), "--output-dir", str(output), "--tracker", "none") as run:
        wait_for(output / "results" / PAGE_NAME)
        page = (output / "results" / PAGE_NAME).read_text(encoding="utf-8")
        assert "0 of 3 runs of tiny have ended" in page, "there is a page before the first run has ended"
        with lorabench("watch", "--output-dir", str(output)) as watch, chromium() as browser:
            assert watch.stdout is not None
            address = watch.stdout.readline().strip()
            with urllib.request.urlopen(address, timeout=20) as answer:
                assert "runs of tiny have ended" in answer.read().decode()
            opened = browser.new_page()
            complaints: list[str] = []
            opened.on("console", lambda message: complaints.append(message.text))
            opened.on("pageerror", lambda error: complaints.append(str(error)))
            opened.goto(address)
            expect(opened.locator("#live")).to_have_text("live")
            step = opened.locator("[data-under-way]").first
            expect(step).to_contain_text("of about", timeout=1000 * SECONDS)
            opened.evaluate("window.isTheSame = true")
            assert run.wait(SECONDS) == 0
            expect(opened.locator("header.top")).to_contain_text("3 runs: 3 completed", timeout=60_000)
            assert opened.evaluate("window.isTheSame") is None, "it was loaded anew"
            assert opened.locator("#progress").count() == 0
            assert complaints == []
            watch.send_signal(signal.SIGINT)
            assert watch.wait(20) == 0
            expect(opened.locator("#live")).to_contain_text("does not answer", timeout=20_000)
            assert watch.stdout.read() == "ended; runs go on without it\n"
