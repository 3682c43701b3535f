"""Rebuilds everything under `results/` from the records alone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lorabench.core.errors import UnknownNameError
from lorabench.core.locks import exclusively
from lorabench.core.storage import write_atomically
from lorabench.report.table import CSV_NAME, write_csv

if TYPE_CHECKING:
    from lorabench.analysis.findings import Findings
    from lorabench.records.asked import Asked
    from lorabench.records.schema import RunRecord
    from lorabench.records.store import RecordStore
    from lorabench.report.section import Report, Section


@dataclass
class ReportPaths:
    """What was written, and what could not be used."""

    results_dir: Path
    written: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    findings: Findings | None = None


def rebuild_table(store: RecordStore, *, wait: bool = True) -> None:
    """Only the table: cheap enough to be done after every run. `wait` as for `exclusively`."""
    with exclusively(store.results_dir / CSV_NAME, wait=wait):
        write_csv(store.read_all()[0], store.results_dir / CSV_NAME)


def build_report(
    store: RecordStore,
    *,
    figures: bool = True,
    wait: bool = True,
    sections: Sequence[Section] | None = None,
    running: str = "",
    experiment: str | None = None,
) -> ReportPaths:
    """Table, summary, page and LaTeX table; with `figures` their files too. `sections`: other than all there are.

    `running` names the experiment that is being done: its page loads itself anew. With `experiment` only its runs are
    reported, in a folder of their own. Raises DiskError, UnknownNameError where no run is of that experiment, and
    without `wait` BusyError where another process is at it.
    """
    from dataclasses import replace

    from lorabench.analysis.analyse import analyse
    from lorabench.analysis.progress import progress_of, provisional
    from lorabench.analysis.spread import SPREAD_NAME, MeasuredSpread, write_spreads
    from lorabench.records.asked import read_asked
    from lorabench.report.deployment_table import CSV_NAME as DEPLOYMENTS_CSV
    from lorabench.report.deployment_table import write_deployments
    from lorabench.report.section import Report
    from lorabench.report.sections import SECTIONS
    from lorabench.report.summary import SUMMARY_NAME

    results = store.results_dir if experiment is None else _folder_of(experiment, store)
    with exclusively(results / CSV_NAME, wait=wait):
        asked, unread = read_asked(store.output_dir)
        records, damaged = store.read_all()
        if experiment is not None:
            records, asked = _of_experiment(experiment, records, asked)
        paths = ReportPaths(results, problems=[str(problem) for problem in damaged])
        write_csv(records, results / CSV_NAME)
        paths.written.append(results / CSV_NAME)
    with exclusively(results / SUMMARY_NAME, wait=wait):
        progress = progress_of(asked, records, running)
        findings = provisional(analyse(records, store), progress)
        findings = replace(findings, problems=(*paths.problems, *unread, *findings.problems))
        chosen = tuple(SECTIONS.all().values()) if sections is None else sections
        report = Report(findings, records, store, chosen, shlex.quote(str(store.output_dir)), progress)
        paths.problems = report.problems
        if figures:
            from lorabench.report.figures import write_figures

            paths.written += write_figures(report, results)
        if report.deployed:
            write_deployments(report.deployed, results / DEPLOYMENTS_CSV)
            paths.written.append(results / DEPLOYMENTS_CSV)
        paths.written += _write_texts(report, results)
    spreads = {
        (corpus.name, corpus.revision): corpus.detectable.spread if corpus.detectable else MeasuredSpread(None, None)
        for corpus in sorted(findings.corpora, key=lambda corpus: len(corpus.candidates))
    }
    write_spreads(results / SPREAD_NAME, spreads)
    paths.findings = findings
    return paths


def _write_texts(report: Report, results: Path) -> list[Path]:
    """Summary, pages and LaTeX table, with links to the figures that lie there."""
    from lorabench.report.latex import LATEX_NAME, render_latex
    from lorabench.report.one_page import ONE_PAGE_NAME, render_one_page
    from lorabench.report.page import PAGE_NAME, render_page
    from lorabench.report.summary import render_summary

    drawn = {path.stem for path in (results / "figures").glob("*.svg") if path.is_file()}
    texts = {
        **render_summary(report, drawn),
        PAGE_NAME: render_page(report),
        ONE_PAGE_NAME: render_one_page(report),
        LATEX_NAME: render_latex(report),
    }
    for name, text in texts.items():
        write_atomically(results / name, text.encode("utf-8", errors="backslashreplace"))
    return [results / name for name in texts]


def _folder_of(experiment: str, store: RecordStore) -> Path:
    """Raises UnknownNameError where no run is of it."""
    from lorabench.experiment.schema import NAME
    from lorabench.records.asked import read_asked

    found = {record.experiment for record in store.read_all()[0]} | {
        one.name for one in read_asked(store.output_dir)[0]
    }
    names = sorted(name for name in found if re.fullmatch(NAME, name))
    if experiment not in names:
        known = ", ".join(names) or "none"
        raise UnknownNameError(f"--experiment {experiment}: no run here is of it; there are: {known}")
    return store.results_dir / "experiments" / experiment


def _of_experiment(
    name: str, records: Sequence[RunRecord], asked: Sequence[Asked]
) -> tuple[list[RunRecord], list[Asked]]:
    """The runs that were recorded under the name or that its plan asks for: a run may be of several experiments."""
    own = [one for one in asked if one.name == name]
    planned = {run_id for one in own for run_id in one.runs}
    return [record for record in records if record.experiment == name or record.run_id in planned], own


def findings_of(records: Sequence[RunRecord], store: RecordStore) -> Findings:
    """What these records support by themselves, as far as their experiments have come."""
    from lorabench.analysis.analyse import analyse
    from lorabench.analysis.progress import progress_of, provisional
    from lorabench.records.asked import read_asked

    names = {record.experiment for record in records}
    asked = [one for one in read_asked(store.output_dir)[0] if one.name in names]
    return provisional(analyse(records, store), progress_of(asked, records))
