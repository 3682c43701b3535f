"""What is printed when an experiment is over."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lorabench.analysis.findings import Findings
from lorabench.analysis.statistics import Interval
from lorabench.cli.views.headline import print_headline
from lorabench.cli.views.table import MAX_ROWS_PER_DATASET, results_table
from lorabench.cli.views.text import clean, make_console, styled
from lorabench.core.formatting import first_of
from lorabench.records.schema import Status
from lorabench.report.headline import headline_of
from lorabench.runs.outcome import Outcome

MAX_FAILURES = 10


def print_outcome(outcome: Outcome, findings: Findings | None = None, console: Console | None = None) -> None:
    """The table of runs, what failed and why, what came out in short, and where to read on."""
    console = console or make_console()
    records = outcome.records
    if records:
        ties = None if findings is None else findings.ties
        num_rows = max(3, MAX_ROWS_PER_DATASET // len({record.spec.dataset for record in records}))
        console.print()
        console.print(results_table(records, ties, _intervals(findings), width=console.width, max_rows=num_rows))
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
    if findings is not None:
        print_headline(headline_of(findings), console)
    if records:
        for name in ("benchmark_results.csv", "results_summary.md", "report.html"):
            if (outcome.results_dir / name).is_file():
                console.print(styled(outcome.results_dir / name), soft_wrap=True)


def _intervals(findings: Findings | None) -> dict[str, Interval]:
    """By run: the interval of its configuration's figure."""
    candidates = [item for corpus in (findings.corpora if findings else ()) for item in corpus.candidates]
    return {run_id: item.bits_per_byte for item in candidates for run_id in item.run_ids}
