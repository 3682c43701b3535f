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
    from lorabench.experiment.reference_results import ReferenceResults
    from lorabench.records.schema import RunRecord
    from lorabench.records.store import RecordStore
    from lorabench.report.experiments import Part
    from lorabench.report.page import Panel
    from lorabench.report.section import Report, Section


@dataclass
class ReportPaths:
    """What was written, and what could not be used."""

    results_dir: Path
    reports: Sequence[Report] = ()
    """One of each experiment: the one that is being done, then the latest first."""
    written: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def findings(self) -> Findings | None:
        """Of the only experiment; None where there are several, each with findings of its own."""
        return self.reports[0].findings if len(self.reports) == 1 else None

    def files_of(self, experiment: str) -> tuple[Path, ...]:
        """What to keep of the report on one experiment, the page first."""
        from lorabench.report.experiments import folder_of
        from lorabench.report.one_page import ONE_PAGE_NAME
        from lorabench.report.page import PAGE_NAME
        from lorabench.report.summary import DETAILS_NAME, SUMMARY_NAME

        folder = self.results_dir if len(self.reports) == 1 else folder_of(experiment, self.results_dir)
        names = (PAGE_NAME, ONE_PAGE_NAME, SUMMARY_NAME, DETAILS_NAME, CSV_NAME)
        return () if folder is None else tuple(folder / name for name in names if (folder / name).is_file())


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
    reference: ReferenceResults | None = None,
) -> ReportPaths:
    """Table, summary, page and LaTeX table; with `figures` their files too. `sections`: other than all there are.

    Several experiments are each reported by itself: in one page, one to a tab, and in a folder of its own. With
    `experiment` only its folder is made. `running` names the experiment that is being done: its page loads itself
    anew. `reference`: results from elsewhere, to be shown with those that the experiments bring. Raises DiskError,
    UnknownNameError where no run is of that experiment, and without `wait` BusyError where another process is at it.
    """
    from lorabench.report.experiments import folder_of_known
    from lorabench.report.summary import SUMMARY_NAME

    results = store.results_dir if experiment is None else folder_of_known(experiment, store)
    with exclusively(results / CSV_NAME, wait=wait):
        reading = _read(store, experiment)
        write_csv(reading.records, results / CSV_NAME)
    with exclusively(results / SUMMARY_NAME, wait=wait):
        reports = _reports(reading, store, sections, running, reference)
        paths = ReportPaths(results, reports, [results / CSV_NAME])
        if len(reports) == 1:
            paths.written += _write_report(reports[0], results, figures=figures)
        else:
            paths.written += _write_reports(reports, results, figures=figures, wait=wait)
    paths.problems = list(dict.fromkeys(problem for report in reports for problem in report.problems))
    return paths


def reports_of(store: RecordStore) -> list[Report]:
    """What all views are made from, as the folder is now, one of each experiment; nothing is written.

    Raises DiskError.
    """
    return _reports(_read(store), store)


@dataclass(frozen=True)
class _Reading:
    """What lies in an output folder, and a sentence on each file that cannot be used."""

    records: Sequence[RunRecord]
    parts: Sequence[Part]
    problems: Sequence[str]


def _read(store: RecordStore, experiment: str | None = None) -> _Reading:
    from lorabench.records.asked import read_asked
    from lorabench.report.experiments import experiments_of

    asked, unread = read_asked(store.output_dir)
    records, damaged = store.read_all()
    parts = [part for part in experiments_of(records, asked) if experiment in (None, part.name)]
    return _Reading(records if experiment is None else parts[0].records, parts, (*map(str, damaged), *unread))


def _reports(
    reading: _Reading,
    store: RecordStore,
    sections: Sequence[Section] | None = None,
    running: str = "",
    reference: ReferenceResults | None = None,
) -> list[Report]:
    from lorabench.report.experiments import Part
    from lorabench.report.sections import SECTIONS

    chosen = tuple(SECTIONS.all().values()) if sections is None else sections
    parts = sorted(reading.parts, key=lambda part: part.name != running)
    return [_report(part, store, chosen, reading.problems, running, reference) for part in parts or [Part("", (), ())]]


def _report(
    part: Part,
    store: RecordStore,
    sections: Sequence[Section],
    problems: Sequence[str],
    running: str,
    reference: ReferenceResults | None,
) -> Report:
    """What is found in an experiment's runs."""
    from dataclasses import replace

    from lorabench.analysis.analyse import analyse
    from lorabench.analysis.progress import progress_of, provisional
    from lorabench.report.section import Report

    progress = progress_of(part.asked, part.records, store, running)
    findings = provisional(analyse(part.records, store), progress)
    experiments = findings.overview.experiments
    own = tuple(one for one in experiments if one.name == part.name)
    overview = replace(findings.overview, experiments=own or tuple(replace(one, question="") for one in experiments))
    findings = replace(findings, overview=overview, problems=(*problems, *findings.problems))
    brought = [reference, *(one.reference for one in part.asked)]
    return Report(
        findings,
        part.records,
        store,
        sections,
        shlex.quote(str(store.output_dir)),
        progress,
        part.name,
        tuple(dict.fromkeys(one for one in brought if one is not None)),
    )


def _write_report(report: Report, results: Path, *, figures: bool, panel: Panel | None = None) -> list[Path]:
    """One experiment's figures, summary, pages and tables; the table of runs lies there."""
    from lorabench.report.figures import write_figures
    from lorabench.report.latex import LATEX_NAME, render_latex
    from lorabench.report.one_page import ONE_PAGE_NAME, render_one_page
    from lorabench.report.page import PAGE_NAME, panel_of, render_page
    from lorabench.report.summary import render_summary

    written = write_figures(report.pictures, results) if figures else []
    drawn = {path.stem for path in (results / "figures").glob("*.svg") if path.is_file()}
    texts = {
        **render_summary(report, drawn),
        PAGE_NAME: render_page([panel or panel_of(report)]),
        ONE_PAGE_NAME: render_one_page([report]),
        LATEX_NAME: render_latex(report),
    }
    return [*written, *_write_tables([report], results), *_write_texts(texts, results)]


def _write_reports(reports: Sequence[Report], results: Path, *, figures: bool, wait: bool) -> list[Path]:
    """Each experiment in a folder of its own, and one page and one summary that lead to them all.

    What an earlier build wrote of a single experiment is removed.
    """
    from lorabench.report.experiments import folder_of
    from lorabench.report.figures import write_figures
    from lorabench.report.latex import LATEX_NAME, render_latex
    from lorabench.report.one_page import ONE_PAGE_NAME, render_one_page
    from lorabench.report.page import PAGE_NAME, panel_of, render_page
    from lorabench.report.summary import DETAILS_NAME, SUMMARY_NAME, render_summaries

    written, panels = [], []
    for report in reports:
        panels.append(panel_of(report))
        if (folder := folder_of(report.experiment, results)) is not None:
            with exclusively(folder / SUMMARY_NAME, wait=wait):
                write_csv(report.records, folder / CSV_NAME)
                written += [folder / CSV_NAME, *_write_report(report, folder, figures=figures, panel=panels[-1])]
    texts = {
        SUMMARY_NAME: render_summaries(reports, results),
        PAGE_NAME: render_page(panels),
        ONE_PAGE_NAME: render_one_page(reports),
        LATEX_NAME: "\n".join(render_latex(report) for report in reports),
    }
    (results / DETAILS_NAME).unlink(missing_ok=True)
    if figures:
        write_figures((), results)
    return [*written, *_write_tables(reports, results), *_write_texts(texts, results)]


def _write_tables(reports: Sequence[Report], results: Path) -> list[Path]:
    """The forms that were measured, where there are any, and for plans how much differences vary."""
    from lorabench.analysis.spread import SPREAD_NAME, MeasuredSpread, write_spreads
    from lorabench.report.deployment_table import CSV_NAME as DEPLOYMENTS_CSV
    from lorabench.report.deployment_table import write_deployments

    corpora = [corpus for report in reports for corpus in report.findings.corpora]
    spreads = {
        (corpus.name, corpus.revision): corpus.detectable.spread if corpus.detectable else MeasuredSpread(None, None)
        for corpus in sorted(corpora, key=lambda corpus: len(corpus.candidates))
    }
    write_spreads(results / SPREAD_NAME, spreads)
    deployed = {item.run.run_id: item for report in reports for item in report.deployed}
    if not deployed:
        return []
    write_deployments(list(deployed.values()), results / DEPLOYMENTS_CSV)
    return [results / DEPLOYMENTS_CSV]


def _write_texts(texts: dict[str, str], results: Path) -> list[Path]:
    for name, text in texts.items():
        write_atomically(results / name, text.encode("utf-8", errors="backslashreplace"))
    return [results / name for name in texts]


def findings_of(records: Sequence[RunRecord], store: RecordStore) -> Findings:
    """What these records support by themselves, as far as their experiments have come."""
    from lorabench.analysis.analyse import analyse
    from lorabench.analysis.progress import progress_of, provisional
    from lorabench.records.asked import read_asked

    names = {record.experiment for record in records}
    asked = [one for one in read_asked(store.output_dir)[0] if one.name in names]
    return provisional(analyse(records, store), progress_of(asked, records, store))
