"""Commands on an output folder: `report`, `watch`, `show`, `score-test`, `reproduce`, `pull-wandb`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorabench.cli.options import DeviceName, OutputDir, RunId
from lorabench.core.errors import InputError


def report(
    output_dir: Annotated[Path, typer.Argument(help="The output folder.", metavar="[DIR]")] = Path("outputs"),
    experiment: Annotated[
        str | None, typer.Option(help="Report this experiment by itself, in results/experiments/NAME.", metavar="NAME")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Results from elsewhere to show beside: a reference file, or `published`.", metavar="FILE"),
    ] = None,
) -> None:
    """Rebuild table, summary, figures and page from the records alone, several experiments each by itself."""
    from lorabench.cli.views.headline import print_headline
    from lorabench.cli.views.text import make_console, styled
    from lorabench.experiment.reference_results import load_reference
    from lorabench.records.store import RecordStore
    from lorabench.report.build import build_report
    from lorabench.report.headline import headline_of
    from lorabench.report.one_page import PDF_NAME, print_pdf

    if not (output_dir / "runs").is_dir():
        raise InputError(f"{output_dir}: there are no runs here; give the folder that lorabench run wrote to")
    beside = None if reference is None else load_reference(reference)
    paths = build_report(RecordStore(output_dir), experiment=experiment, reference=beside)
    if unprinted := print_pdf(paths.results_dir):
        paths.problems.append(unprinted)
    else:
        paths.written.append(paths.results_dir / PDF_NAME)
    for problem in paths.problems:
        print(problem, file=sys.stderr)
    console = make_console()
    for one in paths.reports:
        if len(paths.reports) > 1:
            console.rule(styled(one.experiment, "bold"), align="left")
        print_headline(headline_of(one.findings), console)
    for path in paths.written:
        print(path)


def watch(
    output_dir: OutputDir = Path("outputs"),
    port: Annotated[int, typer.Option(help="On this machine; default: one that is free.", min=0, max=65535)] = 0,
) -> None:
    """Serve the page of a folder to this machine's browser, and change it as runs go on; Ctrl-C ends it."""
    from lorabench.records.store import RecordStore
    from lorabench.report.watch import watch as serve

    if not (output_dir / "runs").is_dir():
        raise InputError(f"{output_dir}: there are no runs here; give the folder that lorabench run writes to")
    try:
        serve(RecordStore(output_dir), port, lambda sentence: print(sentence, flush=True))
    except KeyboardInterrupt:
        print("ended; runs go on without it", file=sys.stderr)


def show(run_id: RunId, output_dir: OutputDir = Path("outputs")) -> None:
    """Show one run."""
    from lorabench.cli.run_names import resolve_run
    from lorabench.cli.views.run_page import show_run
    from lorabench.records.store import RecordStore

    run_id, output_dir = resolve_run(run_id, output_dir)
    store = RecordStore(output_dir)
    show_run(store.get(run_id), store)


def score_test(
    run_id: RunId,
    again: Annotated[bool, typer.Option("--again", help="Yes, a second time; the record is flagged for ever.")] = False,
    output_dir: OutputDir = Path("outputs"),
    device: DeviceName = None,
) -> None:
    """Score a finished run on test a second time: refused without --again."""
    from lorabench.cli.run_names import resolve_run
    from lorabench.cli.views.view import make_view
    from lorabench.records.store import RecordStore
    from lorabench.report.build import rebuild_table
    from lorabench.runs.second_scoring import score_test_again

    run_id, output_dir = resolve_run(run_id, output_dir)
    with make_view(sys.stderr) as view:
        record = score_test_again(run_id, output_dir, again=again, view=view, device=device)
    rebuild_table(RecordStore(output_dir))
    print(f"{run_id}: test scored {record.num_test_scorings} times; the record and every table say so")


def reproduce(run_id: RunId, output_dir: OutputDir = Path("outputs")) -> None:
    """Do one run again in a fresh process, from its record, and compare."""
    from lorabench.cli.run_names import resolve_run
    from lorabench.runs.reproduction import print_reproduction
    from lorabench.runs.reproduction import reproduce as reproduce_run

    result = reproduce_run(*resolve_run(run_id, output_dir))
    print_reproduction(result)
    raise typer.Exit(0 if result.identical else 1)


def pull_wandb(
    project: Annotated[str, typer.Argument(help="NAME or ENTITY/NAME.", metavar="PROJECT")],
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Download the runs of a Weights & Biases project: configuration, summary, every step."""
    from lorabench.cli.views.view import make_view
    from lorabench.trackers.pull_wandb import pull_wandb as pull

    with make_view(sys.stderr) as view:
        runs = pull(project, output_dir, progress=view.progress)
    for pulled in runs:
        print(f"{pulled.folder}: {pulled.num_steps} steps, {pulled.num_evaluations} evaluations")
    print(f"{len(runs)} runs of {project}")
