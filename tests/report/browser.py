"""Debian's Chromium, opening pages from disk; what it was asked to fetch and what it complained of is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@dataclass
class Opened:
    """A page, and everything that would not be there on a clean one."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Console messages, errors in scripts, dialogs."""
    requests: list[str] = field(default_factory=list)
    """Addresses asked for beside the page itself."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's browser; scripts/install_browser.sh installs it."""
    path = shutil.which("chromium")
    assert path is not None, "there is no chromium here: run bash scripts/install_browser.sh"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Browser, path: Path, width: int = 1280, height: int = 900, **context: Any) -> Opened:
    """Open a file in a window of its own."""
    page = browser.new_context(viewport={"width": width, "height": height}, **context).new_page()
    opened = Opened(page)
    page.on("console", lambda message: opened.complaints.append(message.text))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (opened.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: opened.requests.append(request.url))
    page.goto(path.absolute().as_uri())
    opened.requests = [url for url in opened.requests if url != path.absolute().as_uri() and url != "data:,"]
    return opened


def draw_everything(page: Page) -> None:
    """Scroll through the page until every figure is drawn."""
    page.evaluate(
        """async () => {
          for (const box of document.querySelectorAll(".plot")) {
            box.scrollIntoView();
            for (let i = 0; i < 400 && !box.classList.contains("ready"); i++) {
              await new Promise((go) => setTimeout(go, 25));
            }
          }
          scrollTo(0, 0);
        }"""
    )
    assert page.locator(".plot:not(.ready)").count() == 0
