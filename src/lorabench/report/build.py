"""Rebuilds everything under `results/` from the records alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lorabench.core.locks import exclusively
from lorabench.core.storage import write_atomically
from lorabench.report.table import CSV_NAME, write_csv

if TYPE_CHECKING:
    from lorabench.analysis.findings import Findings
    from lorabench.records.schema import RunRecord
    from lorabench.records.store import RecordStore
    from lorabench.report.section import Section


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
) -> ReportPaths:
    """Table, summary, page and LaTeX table; with `figures` their files too. `sections`: other than all there are.

    `running` names the experiment that is being done: its page loads itself anew. Raises DiskError, and without `wait`
    BusyError where another process is at it.
    """
    from dataclasses import replace

    from lorabench.analysis.analyse import analyse
    from lorabench.analysis.progress import progress_of, provisional
    from lorabench.analysis.spread import SPREAD_NAME, MeasuredSpread, write_spreads
    from lorabench.records.asked import read_asked
    from lorabench.report.deployment_table import CSV_NAME as DEPLOYMENTS_CSV
    from lorabench.report.deployment_table import write_deployments
    from lorabench.report.latex import LATEX_NAME, render_latex
    from lorabench.report.one_page import ONE_PAGE_NAME, render_one_page
    from lorabench.report.page import PAGE_NAME, render_page
    from lorabench.report.section import Report
    from lorabench.report.sections import SECTIONS
    from lorabench.report.summary import SUMMARY_NAME, render_summary

    results = store.results_dir
    with exclusively(results / CSV_NAME, wait=wait):
        records, damaged = store.read_all()
        paths = ReportPaths(results, problems=[str(problem) for problem in damaged])
        write_csv(records, results / CSV_NAME)
        paths.written.append(results / CSV_NAME)
    with exclusively(results / SUMMARY_NAME, wait=wait):
        asked, unread = read_asked(store.output_dir)
        progress = progress_of(asked, records, running)
        findings = provisional(analyse(records, store), progress)
        findings = replace(findings, problems=(*paths.problems, *unread, *findings.problems))
        chosen = tuple(SECTIONS.all().values()) if sections is None else sections
        report = Report(findings, records, store, chosen, shlex.quote(str(store.output_dir)), progress)
        paths.problems = report.problems
        if figures:
            from lorabench.report.figures import write_figures

            paths.written += write_figures(report)
        if report.deployed:
            write_deployments(report.deployed, results / DEPLOYMENTS_CSV)
            paths.written.append(results / DEPLOYMENTS_CSV)
        drawn = {path.stem for path in (results / "figures").glob("*.svg") if path.is_file()}
        texts = {
            **render_summary(report, drawn),
            PAGE_NAME: render_page(report),
            ONE_PAGE_NAME: render_one_page(report),
            LATEX_NAME: render_latex(report),
        }
        for name, text in texts.items():
            write_atomically(results / name, text.encode("utf-8", errors="backslashreplace"))
            paths.written.append(results / name)
    spreads = {
        (corpus.name, corpus.revision): corpus.detectable.spread if corpus.detectable else MeasuredSpread(None, None)
        for corpus in sorted(findings.corpora, key=lambda corpus: len(corpus.candidates))
    }
    write_spreads(results / SPREAD_NAME, spreads)
    paths.findings = findings
    return paths


def findings_of(records: Sequence[RunRecord], store: RecordStore) -> Findings:
    """What these records support by themselves, as far as their experiments have come."""
    from lorabench.analysis.analyse import analyse
    from lorabench.analysis.progress import progress_of, provisional
    from lorabench.records.asked import read_asked

    names = {record.experiment for record in records}
    asked = [one for one in read_asked(store.output_dir)[0] if one.name in names]
    return provisional(analyse(records, store), progress_of(asked, records))
