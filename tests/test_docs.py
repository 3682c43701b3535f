"""The pages build into a site in which every link leads somewhere; the README stays short and its links hold."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_readme_is_short_and_its_links_hold() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert len(re.findall(r"!\[", text)) == 1
    targets = re.findall(r"\]\(([^)#]+)", text)
    assert [target for target in targets if not (ROOT / target).exists()] == []
    linked = {Path(target).name for target in targets}
    assert {path.name for path in DOCS.glob("*.md")} - linked <= {"index.md", "log.md"}


class Links(HTMLParser):
    """Where a page leads, and the names of its places."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids |= {value for key in ("id", "name") if (value := values.get(key))}
        self.targets += [value for key in ("href", "src") if (value := values.get(key))]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="the extra docs is not installed")
def test_the_site_builds_and_its_links_hold(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    pages = {path: Links(path) for path in (tmp_path / "site").glob("*.html")}
    assert len(pages) > 15
    broken = []
    for path, links in pages.items():
        if path.name == "404.html":
            continue
        for target in map(urlsplit, links.targets):
            if target.scheme:
                continue
            goal = path.parent / unquote(target.path) if target.path else path
            goal = goal / "index.html" if goal.is_dir() else goal
            known = pages[goal].ids if goal in pages else {target.fragment}
            if not goal.exists() or (target.fragment and unquote(target.fragment) not in known):
                broken.append(f"{path.name}: {target.geturl()}")
    assert broken == []
    assert (tmp_path / "site" / "search" / "search_index.js").is_file(), "the search works from disk"
