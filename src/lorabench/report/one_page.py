"""One printed page for whoever decides: question, answer, how sure it is, what it costs, what was not tested."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorabench.analysis.findings import Candidate, Findings
from lorabench.core.formatting import count, duration, listed, plural, size
from lorabench.core.storage import write_atomically
from lorabench.core.version import VERSION
from lorabench.records.columns import AXES
from lorabench.report.headline import Headline, headline_of, trained_words
from lorabench.report.page import environment, title_of
from lorabench.report.section import Report

ONE_PAGE_NAME = "one_page.html"
PDF_NAME = "report.pdf"
MAX_CORPORA = 6
MAX_SENTENCES = (4, 3, 2)
"""Of reasons, of what was not tested, of what would tell more."""
_LINES = 32
_CHARACTERS = 95
"""What one side holds of lines of text, and such a line of characters."""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_PRINTING_SECONDS = 60.0


def render_one_page(reports: Sequence[Report]) -> str:
    """The page's HTML, which prints on one side of A4 for each experiment."""
    sides = [_side(report) for report in reports]
    return environment().get_template("one_page.html").render(sides=sides, version=VERSION)


def _side(report: Report) -> Mapping[str, Any]:
    """What the template is given for one side."""
    findings = report.findings
    first, costs = headline_of(findings), _costs(findings)
    questions = [experiment.question for experiment in findings.overview.experiments if experiment.question]
    num_corpora, reasons, unknown, steps = _fitting(first, costs, _untried(findings))
    return {
        "title": report.experiment or title_of(findings),
        "question": questions[0] if len(questions) == 1 else "",
        "first": first,
        "reasons": reasons,
        "max_corpora": num_corpora,
        "costs": costs,
        "unknown": unknown,
        "steps": steps,
        "footer": f"From the records of {plural(findings.overview.num_runs, 'run')} in {report.output_dir}.",
    }


def _fitting(
    first: Headline, costs: Sequence[str], untried: Sequence[str]
) -> tuple[int, Sequence[str], Sequence[str], Sequence[str]]:
    """How many corpora, and which sentences of each kind, have room on one side."""
    num_corpora = min(MAX_CORPORA, len(first.corpora))
    most = list(MAX_SENTENCES)
    while True:
        reasons, steps = first.reasons[: most[0]], first.steps[: most[2]]
        unknown = [*untried, *first.unknown][: most[1]]
        sentences = (*reasons, *unknown, *steps, *costs, first.verdict, first.verdict)
        rows = sum(2 if len(line.choice) > 36 or len(line.corpus) > 16 else 1 for line in first.corpora[:num_corpora])
        if sum(-(-len(sentence) // _CHARACTERS) for sentence in sentences) + 1.3 * rows <= _LINES:
            return num_corpora, reasons, unknown, steps
        if num_corpora > 3:
            num_corpora -= 1
        elif max(most) > 1:
            most[most.index(max(most))] -= 1
        else:
            return num_corpora, reasons, unknown, steps


def _untried(findings: Findings) -> list[str]:
    """That nothing else was varied."""
    if not findings.corpora:
        return []
    varied = [AXES[axis].title for axis in findings.overview.varied]
    return [f"Only {listed(varied, 6)} varied: no other setting was tried" if varied else "Nothing was varied"]


def _costs(findings: Findings) -> list[str]:
    """What the choice took to train and takes to keep; what all runs took together."""
    choices = [findings.overall] if findings.overall is not None else findings.recommendations
    chosen = [findings.candidate(key) for choice in choices for key in choice.candidates]
    costs = [] if not chosen else _costs_of(max(chosen, key=lambda item: item.trained.steps if item.trained else 0))
    overview = findings.overview
    spent = f"All {plural(overview.num_runs, 'run')} together trained for {duration(overview.train_seconds)}"
    return [*costs, f"{spent} on {', '.join(overview.hardware[:2])}" if overview.hardware else spent]


def _costs_of(item: Candidate) -> Sequence[str]:
    cost = item.cost
    return [
        f"It was trained in {trained_words(item.trained)}, {count(cost.tokens_per_second)} tokens/s, "
        f"{size(cost.peak_memory_bytes)} of memory at its peak",
        f"To keep: {size(cost.adapter_bytes)} beside its base model",
    ]


def find_browser() -> str | None:
    """A Chromium, or another browser that prints as it does; None where there is none."""
    return next((path for name in _BROWSERS if (path := shutil.which(name)) is not None), None)


def print_pdf(results: Path) -> str:
    """Print the page that lies in `results` to `report.pdf`; returns why not, in a sentence, empty where it was."""
    browser = find_browser()
    instead = f"print {results / ONE_PAGE_NAME} from a browser"
    if browser is None:
        return f"{PDF_NAME} was not made, for there is no Chromium here; {instead}"
    with tempfile.TemporaryDirectory() as temporary:
        pdf = Path(temporary) / PDF_NAME
        command = [
            *(browser, "--headless", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={temporary}/profile"),
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            *(f"--print-to-pdf={pdf}", (results / ONE_PAGE_NAME).resolve().as_uri()),
        ]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=_PRINTING_SECONDS)
            content = pdf.read_bytes()
        except (OSError, subprocess.SubprocessError) as problem:
            reason = " ".join(str(problem).split())[:120]
            return f"{PDF_NAME} was not made, for {Path(browser).name} failed ({reason}); {instead}"
    write_atomically(results / PDF_NAME, content)
    return ""
