"""What is read first: recommendation, models, the best per corpus and what is open, in 40 lines and short sentences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lorabench.core.formatting import shorten
from lorabench.report.build import ReportPaths
from lorabench.report.headline import MAX_CORPORA
from tests.marks import slow
from tests.report.first_screen import (
    CORPORA,
    FOLDERS,
    MODELS,
    SCREEN_LINES,
    WIDTH,
    num_words,
    page_blocks,
    report_of,
    sentences_of,
    summary_screen,
    terminal,
)

MAX_WORDS = 30
ALWAYS = {"four corpora, three models", "one seed", "all failed"}


@pytest.fixture(scope="module", params=[name if name in ALWAYS else slow(name) for name in FOLDERS])
def paths(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    return report_of(request.param, tmp_path_factory.mktemp("first"))


def test_the_summary_holds_it_in_forty_lines(paths: ReportPaths) -> None:
    lines = summary_screen(paths)
    assert len(lines) <= SCREEN_LINES
    assert max(len(line) for line in lines if not line.startswith("|")) <= WIDTH
    assert max(map(len, lines)) <= WIDTH + 50 * ("long-name" in lines[2]), "names make a row of a table longer"
    text = "\n".join(lines)
    assert re.search(r"^\*\*(.*take|Nothing|No |There)", text, re.MULTILINE), "the recommendation comes first"
    places = [text.find(words) for words in ("**Base models:**", "| best on", "**Not known:**", "**Next:**")]
    assert places[0] > 0
    assert places[3] > 0
    assert [place for place in places if place >= 0] == sorted(place for place in places if place >= 0)
    assert paths.findings is not None
    assert (places[1] > 0) == bool(paths.findings.corpora)
    shown = re.findall(r"^\| (\S+) \|", text.split("| best on")[-1], re.MULTILINE)[1:] if places[1] > 0 else []
    assert shown == [shorten(corpus.label, 24) for corpus in paths.findings.corpora][:MAX_CORPORA]


def test_no_sentence_is_long_anywhere(paths: ReportPaths) -> None:
    texts = {"summary": "\n".join(summary_screen(paths)), "terminal": _prose(terminal(paths))}
    found = [sentence for text in texts.values() for sentence in sentences_of(text)]
    found += [sentence for block in page_blocks(paths) for sentence in sentences_of(block)]
    assert [sentence for sentence in found if num_words(sentence) > MAX_WORDS] == []


def _prose(text: str) -> str:
    """The terminal's lines but those of its tables."""
    return "\n".join("" if re.search(r"\S {3,}\S", line) else line for line in text.splitlines())


def test_no_heading_is_repeated_below_it(paths: ReportPaths) -> None:
    blocks = page_blocks(paths)
    verdict = next(block for block in blocks if re.search(r"take |Nothing|No |There are", block))
    assert sum(verdict in block for block in blocks) == 1


def test_all_three_say_the_same_figures(paths: ReportPaths) -> None:
    """Each figure of the first screen is in the summary, the page and the terminal with the same digits."""
    pattern = r"(?<![\w.])[+−]?\d+\.\d+(?![\w.]*\d)"
    said = {
        "summary": set(re.findall(pattern, "\n".join(summary_screen(paths)).replace("\\", ""))),
        "page": {item for block in page_blocks(paths) for item in re.findall(pattern, block)},
        "terminal": set(re.findall(pattern, terminal(paths))),
    }
    assert said["terminal"] == said["page"]
    assert said["summary"] <= said["page"], "the summary has fewer sentences where its lines are used up"


def test_a_corpus_has_one_figure_everywhere(paths: ReportPaths) -> None:
    """First screen, the page's section and the table of all configurations; likewise of each model."""
    screen = "\n".join(summary_screen(paths))
    page = (paths.results_dir / "report.html").read_text(encoding="utf-8")
    details = (paths.results_dir / "results_details.md").read_text(encoding="utf-8")
    for corpus, label, figure in re.findall(r"^\| (\S+) \| (\S+, rank [^…]*?) \| ([\d.]+) \|", screen, re.MULTILINE):
        row = rf"<bdi>{corpus}</bdi><br><small>[^<]*</small></th>\s*<td><bdi>{label}</bdi></td>"
        row += r"\s*<td class=\"n\">([\d.]+)</td>"
        assert re.findall(row, page.split('id="corpora"')[1]) == [figure]
        table = details.split(f"### {corpus}\n")[1].split("\n### ")[0]
        assert set(re.findall(rf"\| {label} \| \d+ \| ([\d.]+) \|", table)) == {figure}
    for model, mean in re.findall(r"^\| (model-\d) \| ([\d.]+) \|", screen, re.MULTILINE):
        row = rf"<bdi>{model}</bdi></th>\s*<td class=\"n\">([\d.]+)</td>"
        assert re.findall(row, page.split('id="models"')[1].split("</section>")[0]) == [mean]


def test_the_terminal_is_as_short(paths: ReportPaths) -> None:
    assert len(terminal(paths).splitlines()) <= SCREEN_LINES + 14
    assert max(map(len, terminal(paths, 80).splitlines())) <= 80


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    paths = report_of("one seed", tmp_path)
    assert paths.findings is not None
    assert not any(item.is_decided for item in paths.findings.recommendations)
    page = (paths.results_dir / "report.html").read_text(encoding="utf-8").split("</style>")[1].split("<script")[0]
    assert "badge decided" not in page
    assert 'class="best"' not in page
    assert "on seed 0 only" in terminal(paths)
    assert "**best**" not in (paths.results_dir / "results_details.md").read_text(encoding="utf-8")


def test_what_is_clear_is_said(tmp_path: Path) -> None:
    paths = report_of("four corpora, three models", tmp_path)
    text = "\n".join(summary_screen(paths))
    assert "take model-0, rank 16, rate 0.001" in text
    assert re.search(r"^\| model-0 \|.*\| best \|$", text, re.MULTILINE)
    assert len(re.findall(r"^\| \S+ \| model-0, rank 16, rate 0.001 \|.*\| best \|$", text, re.MULTILINE)) == 4
    assert "Learning rate makes a detectable difference in 12 of 12 cases" in " ".join(text.split())
    page = (paths.results_dir / "report.html").read_text(encoding="utf-8")
    assert "badge decided" in page.split('id="recommendation"')[1].split("</section>")[0]


def test_what_another_member_costs_stands_beside_it(tmp_path: Path) -> None:
    paths = report_of("everything tied", tmp_path)
    text = "\n".join(summary_screen(paths))
    assert "95 times in a hundred" in text
    assert re.search(r"not told from \d others?; costs at most 0\.\d+", text)
    summary = (paths.results_dir / "results_summary.md").read_text(encoding="utf-8")
    members = re.findall(r"The best is among these (\d+), 95 times in a hundred: (.*)", summary)
    assert members
    assert all(number == str(line.count("at most")) or "more" in line for number, line in members if "(c" in line)


def test_a_summary_of_many_runs_stays_short(tmp_path: Path) -> None:
    paths = report_of("48 runs", tmp_path)
    summary = (paths.results_dir / "results_summary.md").read_text(encoding="utf-8")
    details = (paths.results_dir / "results_details.md").read_text(encoding="utf-8")
    assert len(summary) < 16_000, "63 kB when all tables stood in it"
    assert len(details) < 70_000
    for name, anchor in re.findall(r"\((results_details\.md)#([^)]+)\)", summary):
        assert (paths.results_dir / name).is_file()
        headings = re.findall(r"^## (.*)$", details, re.MULTILINE)
        assert anchor in {heading.lower().replace(".", "").replace(" ", "-") for heading in headings}
    assert all(f"### {corpus}" in details for corpus in CORPORA if "-" not in corpus)
    assert all(model in details for model in MODELS)
