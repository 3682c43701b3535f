"""What is printed when an experiment is over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.text import Text

from lorabench.cli.views.table import Ties, results_table
from lorabench.cli.views.text import clean, make_console, styled
from lorabench.core.formatting import first_of
from lorabench.records.schema import RunRecord, Status

MAX_FAILURES = 10


@dataclass(frozen=True)
class Counts:
    """The runs of an experiment, each counted once, by what became of it."""

    completed_now: int = 0
    completed_before: int = 0
    completed_elsewhere: int = 0
    """By another process, meanwhile."""
    failed_now: int = 0
    """Failed, out of memory or diverged."""
    failed_before: int = 0
    """And not tried again."""
    failed_elsewhere: int = 0
    stopped_early: int = 0
    """A strategy had seen enough of them."""
    cancelled: int = 0
    not_reached: int = 0
    """The command ended before their turn."""

    @classmethod
    def of(
        cls,
        run_ids: Sequence[str],
        records: Mapping[str, RunRecord],
        *,
        tried: Collection[str],
        skipped: Collection[str],
    ) -> Counts:
        """From the records that there are at the end, the runs that this command tried and those it never wanted."""
        counts = dict.fromkeys(vars(cls()), 0)
        for run_id in run_ids:
            counts[_fate(records.get(run_id), run_id in tried, run_id in skipped)] += 1
        return cls(**counts)

    @property
    def total(self) -> int:
        """All runs that the experiment asks for."""
        return sum(vars(self).values())

    @property
    def completed(self) -> int:
        """By whomever and whenever."""
        return self.completed_now + self.completed_before + self.completed_elsewhere

    def sentence(self) -> str:
        """How many completed, and what became of the others; the numbers add up."""
        words = f"{self.completed} of {self.total} runs completed"
        words += f", {self.completed_before} of them before" if self.completed_before else ""
        words += f", {self.completed_elsewhere} of them by another process" if self.completed_elsewhere else ""
        others = {
            "failed": self.failed_now,
            "failed before and not tried again": self.failed_before,
            "failed in another process": self.failed_elsewhere,
            "stopped early": self.stopped_early,
            "cancelled": self.cancelled,
            "not reached": self.not_reached,
        }
        return "; ".join([words, *(f"{count} {what}" for what, count in others.items() if count)])


def _fate(record: RunRecord | None, tried: bool, skipped: bool) -> str:
    """The field of `Counts` that a run belongs to."""
    if record is None or (record.goes_on and not tried):
        return "not_reached"
    when = "now" if tried else "before" if skipped else "elsewhere"
    if record.status is Status.COMPLETED:
        return f"completed_{when}"
    if record.status in (Status.CANCELLED, Status.STOPPED_EARLY):
        return record.status.value
    return f"failed_{when}"


class FinishedExperiment(Protocol):
    """The part of the pipeline's outcome that is printed."""

    @property
    def records(self) -> Sequence[RunRecord]:
        """Of every run of the experiment that has one."""

    @property
    def counts(self) -> Counts:
        """What became of each run that was asked for."""

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
    console.print(Text(outcome.counts.sentence()), soft_wrap=True)
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
    if any(record.environment_failed for record in failed):
        console.print(
            Text("The same command takes up what disk, network or a vanished folder stopped.", style="yellow")
        )
    if any(not record.goes_on for record in failed):
        console.print(Text("The same command with --retry failed tries the failed runs again.", style="yellow"))
    if outcome.cancelled:
        console.print(Text("Stopped; the same command goes on where it stopped.", style="yellow"))
    if records:
        for name in ("benchmark_results.csv", "results_summary.md", "report.html"):
            if (outcome.results_dir / name).is_file():
                console.print(styled(outcome.results_dir / name), soft_wrap=True)
