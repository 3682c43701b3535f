"""What is printed when an experiment is over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.text import Text

from lorabench.formatting import first_of
from lorabench.record.schema import RunRecord, Status
from lorabench.terminal.table import Ties, results_table
from lorabench.terminal.text import clean, make_console, styled

MAX_FAILURES = 10


class FinishedExperiment(Protocol):
    """The part of the pipeline's outcome that is printed."""

    @property
    def records(self) -> Sequence[RunRecord]:
        """Of every run of the experiment that has one."""

    @property
    def num_skipped(self) -> int:
        """Runs that were done before."""

    @property
    def num_unmeasured(self) -> int:
        """Completed runs that lack a measurement."""

    @property
    def cancelled(self) -> bool:
        """The user stopped it."""

    @property
    def results_dir(self) -> Path:
        """Where table and report lie."""

    @property
    def problems(self) -> Sequence[str]:
        """Records and files, of this experiment or another, that could not be used."""


def print_outcome(outcome: FinishedExperiment, ties: Ties | None = None, console: Console | None = None) -> None:
    """The table of runs, what failed and why, and where to read on."""
    console = console or make_console()
    records = outcome.records
    if records:
        console.print()
        console.print(results_table(records, ties, width=console.width))
        console.print()
    num_completed = sum(record.status is Status.COMPLETED for record in records)
    line = Text(f"{num_completed} of {len(records)} runs completed")
    if outcome.num_skipped:
        line.append(f", {outcome.num_skipped} of them before")
    console.print(line)
    failed = [record for record in records if record.status not in {Status.COMPLETED, Status.STOPPED_EARLY}]
    for record in failed[:MAX_FAILURES]:
        reason = f": {clean(record.status_reason, 300)}" if record.status_reason else ""
        console.print(
            Text.assemble(styled(record.run_id, "red"), f"  {record.status.value.replace('_', ' ')}{reason}"),
            soft_wrap=True,
        )
    if len(failed) > MAX_FAILURES:
        console.print(Text(f"… and {len(failed) - MAX_FAILURES} more; the table lists them all"))
    if outcome.num_unmeasured:
        runs = "1 completed run lacks"
        if outcome.num_unmeasured > 1:
            runs = f"{outcome.num_unmeasured} completed runs lack"
        sentence = f"{runs} a measurement; the notes of the record say why, and the same command tries again"
        console.print(Text(sentence, "yellow"))
    for problem in first_of(outcome.problems):
        console.print(Text.assemble(("note: ", "yellow"), styled(problem)), soft_wrap=True)
    if outcome.cancelled:
        console.print(Text("Stopped; the same command goes on where it stopped.", style="yellow"))
    if records:
        for name in ("benchmark_results.csv", "results_summary.md", "report.html"):
            if (outcome.results_dir / name).is_file():
                console.print(styled(outcome.results_dir / name), soft_wrap=True)
