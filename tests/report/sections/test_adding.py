"""A section is one file: given here, it is on the page, in the summary, in LaTeX and among the figures."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import lorabench.report.sections as package
from lorabench.core.formatting import bits
from lorabench.core.registry import Registry
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report
from lorabench.report.latex import LATEX_NAME, latex_text
from lorabench.report.markdown import escape, table
from lorabench.report.page import PAGE_NAME
from lorabench.report.picture import Kind, Panel, Picture, Point, Series
from lorabench.report.section import Chapter, PagePart, References, Report, Section, SummaryPart, in_order
from lorabench.report.sections import SECTIONS
from lorabench.report.summary import SUMMARY_NAME
from tests.report.synthetic import SyntheticResults

HOSTILE = "<b>bold</b> & 100 % | `code`"
ONE_FILE = """
from lorabench.report.section import Chapter, PagePart, Section, SummaryPart

SECTION = Section(
    "greeting",
    250,
    page=PagePart("<h2>{{ words }}</h2>", "Greeting", lambda report, picture: {"words": "Good day"}),
    summary=SummaryPart(Chapter.OVERVIEW, lambda report, reference: ["### Good day"]),
)
"""


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any]:
    return {"name": HOSTILE, "runs": len(report.records), "picture": picture}


def _summary(report: Report, reference: References) -> list[str]:
    rows = [[reference(item.key), bits(item.bits_per_byte.estimate)] for item in report.findings.corpora[0].candidates]
    return [f"### {escape(HOSTILE)}", table(["", "figure"], rows)]


def _picture(report: Report) -> Picture:
    points = tuple(Point(float(record.spec.adapter.rank), 1.0) for record in report.records)
    panel = Panel("ranks", "Every rank once", Kind.POINTS, "rank", "one", (Series("runs", 0, points),))
    return Picture("ranks_tried", "Ranks tried", (panel,), (), ())


MINE = Section(
    "mine",
    450,
    page=PagePart(
        "<h2>{{ name }}</h2><p>{{ runs }} runs of mine</p>{{ figure(picture) }}",
        "My section",
        _values,
        lambda report: {"mine-data": [record.run_id for record in report.ordered]},
        'byId("mine").dataset.number = read("mine-data").length;',
    ),
    summary=SummaryPart(Chapter.CONFIGURATION, _summary, "Ranks that were tried"),
    latex=lambda report: f"% of mine\n{latex_text(HOSTILE)}\n",
    picture=_picture,
)


def test_a_section_of_ones_own_has_a_part_of_everything(tmp_path: Path) -> None:
    records = SyntheticResults(tmp_path).grid(ranks=[8, 16])
    figures = sorted(bits(record.validation.bits_per_byte) for record in records if record.validation is not None)
    SECTIONS.add("mine", MINE)
    try:
        paths = build_report(RecordStore(tmp_path))
    finally:
        SECTIONS.remove("mine")
    page = (paths.results_dir / PAGE_NAME).read_text(encoding="utf-8")
    assert '<a href="#mine">My section</a>' in page
    assert "<h2>&lt;b&gt;bold&lt;/b&gt; &amp; 100 % | `code`</h2><p>2 runs of mine</p>" in page
    assert page.index('<section id="settings"') < page.index('<section id="mine"') < page.index('<section id="cost"')
    assert '<script type="application/json" id="mine-data">["tiny_news' in page
    assert '"ranks_tried":[{"label":"ranks"' in page
    assert MINE.page is not None
    assert MINE.page.script in page
    summary = (paths.results_dir / SUMMARY_NAME).read_text(encoding="utf-8")
    chapter = summary.split("## 4. ")[1].split("## 5. ")[0]
    rows = re.escape(f"### {escape(HOSTILE)}\n\n|  | figure |\n| --- | ---: |\n")
    rows += "".join(rf"\| c\d \| {re.escape(figure)} \|\n" for figure in figures)
    assert re.search(rows, chapter)
    assert chapter.rstrip().endswith("![Ranks that were tried](figures/ranks_tried.svg)")
    assert (paths.results_dir / "figures" / "ranks_tried.svg").is_file()
    latex = (paths.results_dir / LATEX_NAME).read_text(encoding="utf-8")
    assert latex.startswith("% of mine\n")
    assert r"bold\textless{}/b\textgreater{} \& 100 \%" in latex
    assert r"\begin{tabular}" in latex


def test_a_file_dropped_into_the_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greeting.py").write_text(ONE_FILE, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr("lorabench.report.sections.SECTIONS", Registry(package.__name__, "SECTION", "section"))
    try:
        SyntheticResults(tmp_path / "outputs").grid(ranks=[8])
        paths = build_report(RecordStore(tmp_path / "outputs"), figures=False)
    finally:
        monkeypatch.undo()
        sys.modules.pop(f"{package.__name__}.greeting", None)
    page = (paths.results_dir / PAGE_NAME).read_text(encoding="utf-8")
    assert '<section id="greeting" class="stack">\n<h2>Good day</h2>' in page
    assert "### Good day" in (paths.results_dir / SUMMARY_NAME).read_text("utf-8").split("## 2. ")[0]
    assert "greeting" not in SECTIONS.all()


def test_a_section_that_has_nothing_to_show_leaves_no_trace(tmp_path: Path) -> None:
    SyntheticResults(tmp_path).grid(ranks=[8])
    silent = Section("silent", 1, page=PagePart("<h2>Silent</h2>", "Silent", lambda report, picture: None))
    build_report(RecordStore(tmp_path), figures=False, sections=(*SECTIONS.all().values(), silent))
    page = (tmp_path / "results" / PAGE_NAME).read_text(encoding="utf-8")
    assert "silent" not in page.lower().split("<script")[0]


def test_two_sections_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two sections of the report are called mine"):
        in_order([MINE, MINE])


def test_every_section_has_its_place() -> None:
    names = [section.name for section in in_order([*SECTIONS.all().values()])]
    assert names == [
        *("progress", "recommendation", "unanswered", "next_steps", "use", "problems", "overview", "texts", "models"),
        *("quantized_bases", "search"),
        *(
            "corpora",
            "settings",
            "cost",
            "gain",
            "drift",
            "gain_against_drift",
            "lengths",
            "curves",
            "answers",
            "deployment",
            "tasks",
            "samples",
            "runs",
            "reference",
            "failures",
            "place",
        ),
    ]
