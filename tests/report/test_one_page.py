"""The page for whoever decides: one side of A4, whatever lies in the folder, and nothing in it means anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lorabench.records.store import RecordStore
from lorabench.report import one_page
from lorabench.report.build import build_report
from lorabench.report.one_page import ONE_PAGE_NAME, PDF_NAME, find_browser, print_pdf
from tests.report.first_screen import FOLDERS
from tests.report.synthetic import SyntheticResults, Truth


def made(folder: Path, name: str) -> Path:
    FOLDERS[name](folder)
    return build_report(RecordStore(folder), figures=False).results_dir


def test_question_answer_certainty_cost_and_what_was_not_tested(tmp_path: Path) -> None:
    text = (made(tmp_path, "four corpora, three models") / ONE_PAGE_NAME).read_text(encoding="utf-8")
    for part in ("Which is best?", "Over all 4 corpora take model-0", "the best, beyond chance", "bits per byte"):
        assert part in text
    assert re.search(r"To keep: [\d.]+ MB beside its base", text)
    assert "Only model, rank and learning rate varied: no other setting was tried" in text
    assert "<script" not in text


def test_hostile_names_show_as_they_are(tmp_path: Path) -> None:
    results = SyntheticResults(tmp_path, Truth(), experiment="<img src=x onerror=alert(1)>")
    results.grid(datasets=["<b>news</b>"], ranks=[8, 16])
    text = (build_report(results.store, figures=False).results_dir / ONE_PAGE_NAME).read_text(encoding="utf-8")
    assert "<img" not in text
    assert "<b>" not in text
    assert "&lt;b&gt;news&lt;/b&gt;" in text


def test_without_a_browser_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_page, "find_browser", lambda: None)
    assert print_pdf(tmp_path).endswith(f"print {tmp_path / ONE_PAGE_NAME} from a browser")
    monkeypatch.setattr(one_page, "find_browser", lambda: "/bin/false")
    assert "for false failed" in print_pdf(tmp_path)
    assert not (tmp_path / PDF_NAME).exists()


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason="there is no Chromium")
@pytest.mark.parametrize("name", FOLDERS)
def test_it_prints_on_one_side(tmp_path: Path, name: str) -> None:
    results = made(tmp_path, name)
    assert print_pdf(results) == ""
    content = (results / PDF_NAME).read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) == 1
