"""`lorabench deploy`: the forms of a run in a terminal, and which to ship."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lorabench.cli.views.text import clean, make_console, styled
from lorabench.records.store import RecordStore
from lorabench.report.deployment_table import DeployedRun, deployed_runs
from lorabench.report.sections.deployment import ANSWER_HEADINGS, HEADINGS, answer_rows, cells, failures
from lorabench.runs.outcome import Outcome

_WIDE = 150
_IN_NARROW = (0, 1, 2, 4, 6, 8)
"""Columns of a terminal that is not wide: form, disk, bits per byte, gain kept, memory, speed."""


def print_deployments(outcome: Outcome, store: RecordStore, console: Console | None = None) -> None:
    """What to ship of each run that an experiment deployed."""
    console = console or make_console()
    run_ids = {record.run_id for record in outcome.deployments}
    found, problems = deployed_runs([record for record in outcome.records if record.run_id in run_ids], store)
    for deployed in found:
        console.print(Text(clean(deployed.run.run_id)), soft_wrap=True, end="")
        print_deployment(deployed, console)
    for problem in (*outcome.undeployed, *problems):
        console.print(Text.assemble(("note: ", "yellow"), styled(problem)), soft_wrap=True)


def print_deployment(deployed: DeployedRun, console: Console | None = None) -> None:
    """What to ship and why, and the table of all forms."""
    console = console or make_console()
    choice = deployed.choice
    style = "bold green" if choice.pick is not None else "bold"
    console.print(Text(f"\n{clean(choice.verdict)}.", style=style))
    for sentence in (*choice.reasons, *failures(deployed.records)):
        console.print(Padding(Text(f"{clean(sentence)}."), (0, 0, 0, 2), expand=False))
    if choice.standings:
        table = Table(box=None, pad_edge=False, header_style="dim")
        shown = _IN_NARROW if console.width < _WIDE else tuple(range(len(HEADINGS)))
        for place in shown:
            table.add_column(HEADINGS[place], justify="left" if place == 0 else "right", no_wrap=True)
        for standing in choice.standings:
            row = cells(standing)
            table.add_row(*(clean(row[place]) for place in shown))
        console.print()
        console.print(table)
    if rows := answer_rows(deployed):
        table = Table(*ANSWER_HEADINGS, box=None, pad_edge=False, header_style="dim")
        for row in rows:
            table.add_row(*map(clean, row))
        console.print()
        console.print(table)
    console.print()
