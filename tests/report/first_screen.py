"""Synthetic folders of several kinds, and what is read first of each: summary, page and terminal as plain text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

from rich.console import Console

from lorabench.cli.views.headline import print_headline
from lorabench.records.schema import Status
from lorabench.records.store import RecordStore
from lorabench.report.build import ReportPaths, build_report
from lorabench.report.headline import headline_of
from tests.report.synthetic import SyntheticResults, Truth

MODELS = tuple(f"model-{number}" for number in range(4))
CORPORA = ("news", "medical", "python-code", "stories")
SCREEN_LINES = 40
WIDTH = 120


def _clear(folder: Path) -> None:
    truth = Truth(
        by_model={name: 0.1 * place for place, name in enumerate(MODELS)}, by_rank={8: 0.05}, noise=0.002,
        seed_deviation=0.0005, by_learning_rate={1e-4: 0.1},
    )  # fmt: skip
    SyntheticResults(folder, truth).grid(MODELS[:3], CORPORA, [8, 16], [1e-4, 1e-3], [0, 1, 2])


def _one_seed(folder: Path) -> None:
    truth = Truth(by_rank={8: 0.1}, noise=0.002)
    SyntheticResults(folder, truth).grid(MODELS[:2], CORPORA[:2], [8, 16])


def _tied(folder: Path) -> None:
    SyntheticResults(folder, Truth(noise=0.05)).grid(MODELS[:3], CORPORA[:3], [8, 16, 32], seeds=[0, 1])


def _failed(folder: Path) -> None:
    SyntheticResults(folder).grid(MODELS[:2], CORPORA, status=Status.FAILED, status_reason="the disk is full")


def _no_gain(folder: Path) -> None:
    SyntheticResults(folder, Truth(gain=0.0)).grid(MODELS[:2], CORPORA[:2], seeds=[0, 1])


def _large(folder: Path) -> None:
    truth = Truth(by_model={name: 0.05 * place for place, name in enumerate(MODELS)})
    SyntheticResults(folder, truth, also_on=CORPORA[:2]).grid(MODELS, CORPORA, [8, 16, 32])


def _many(folder: Path) -> None:
    """More models and corpora than are shown, with long names and several settings varied."""
    models = [f"a-model-with-a-long-name-{size}-instruct" for size in ("135m", "360m", "410m", "1b", "2b", "7b", "8b")]
    corpora = [f"a-corpus-with-a-long-name-{number}" for number in range(12)]
    results = SyntheticResults(folder, Truth(noise=0.05), num_documents=20)
    for adapter in ({"target_modules": "attention", "alpha": 64}, {"target_modules": "mlp", "dropout": 0.1}):
        results.grid(models, corpora, [8], adapter=adapter)


FOLDERS: dict[str, Callable[[Path], object]] = {
    "one corpus, one model": lambda folder: SyntheticResults(folder).grid(seeds=[0, 1]),
    "four corpora, three models": _clear,
    "all failed": _failed,
    "one seed": _one_seed,
    "everything tied": _tied,
    "no gain": _no_gain,
    "48 runs": _large,
    "many models and corpora": _many,
    "no documents": lambda folder: SyntheticResults(folder, documents=False).grid(MODELS[:2], CORPORA[:2]),
    "nothing": lambda folder: (folder / "runs").mkdir(parents=True),
}


def report_of(name: str, folder: Path) -> ReportPaths:
    """The folder of this name, made and reported on."""
    FOLDERS[name](folder)
    return build_report(RecordStore(folder), figures=False)


def summary_screen(paths: ReportPaths) -> list[str]:
    """The lines of the summary's first screen."""
    text = (paths.results_dir / "results_summary.md").read_text(encoding="utf-8")
    return text.split("\n## 1. ")[0].splitlines()


def terminal(paths: ReportPaths, width: int = WIDTH) -> str:
    """What a command prints at its end."""
    assert paths.findings is not None
    stream = io.StringIO()
    print_headline(headline_of(paths.findings), Console(file=stream, width=width, markup=False, highlight=False))
    return stream.getvalue()


class _Blocks(HTMLParser):
    """Texts of the page's first section, one for each paragraph, item, heading and cell; folded parts left out."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self._is_inside = False
        self._folded = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self._is_inside = ("id", "recommendation") in attrs
        self._folded += tag == "details"
        if tag in {"p", "li", "h2", "h3", "td", "th", "br"}:
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        self._folded -= tag == "details"
        self._is_inside &= tag != "section"

    def handle_data(self, data: str) -> None:
        if self._is_inside and not self._folded and self.blocks:
            self.blocks[-1] += data


def page_blocks(paths: ReportPaths) -> list[str]:
    """What the first section of the page shows."""
    parser = _Blocks()
    parser.feed((paths.results_dir / "report.html").read_text(encoding="utf-8"))
    return [" ".join(block.split()) for block in parser.blocks if block.strip()]


def sentences_of(text: str) -> list[str]:
    """Sentences of running text; lines of tables are none."""
    lines = ["" if line.startswith("|") else line for line in text.splitlines()]
    paragraphs = re.split(r"\n\s*\n|\n(?=- )", "\n".join(lines))
    return [part for paragraph in paragraphs for part in re.split(r"(?<=[.:])\s+", paragraph) if part.strip()]


def num_words(sentence: str) -> int:
    """Numbers and names count as words."""
    return len(re.findall(r"\S*\w\S*", sentence))
