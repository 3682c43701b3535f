"""Commands that take a finished run to where it is used: `deploy`, `export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorabench.cli.options import OutputDir, RunId


def deploy(
    run_id: RunId,
    forms: Annotated[
        str,
        typer.Option(help="Forms, with commas between; default: all that can be made here.", metavar="FORM,FORM"),
    ] = "",
    rounds: Annotated[int, typer.Option(help="How often each form is timed, in alternating rounds.", min=1)] = 3,
    threads: Annotated[int | None, typer.Option(help="Of every form; default: the machine's cores.", min=1)] = None,
    device: Annotated[str, typer.Option(help="Where they are used: cpu, cuda, cuda:1.")] = "cpu",
    max_memory: Annotated[
        str | None, typer.Option(help="Take only a form that needs no more: 2GB, 800MB.", metavar="SIZE")
    ] = None,
    max_disk: Annotated[str | None, typer.Option(help="Take only a form that is no larger.", metavar="SIZE")] = None,
    min_decode: Annotated[
        float | None, typer.Option(help="Take only a form that writes so many tokens a second.", min=0.0)
    ] = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Measure the forms in which a run could be shipped: quality against the adapter, size, memory, speed."""
    from lorabench.cli.run_names import resolve_run
    from lorabench.cli.views.deployment import print_deployment
    from lorabench.cli.views.view import make_view
    from lorabench.core.formatting import parse_size
    from lorabench.deploy.deployment import deploy_run
    from lorabench.records.deployment import Constraints
    from lorabench.records.schema import Status
    from lorabench.records.store import RecordStore
    from lorabench.report.build import build_report
    from lorabench.report.deployment_table import deployed_runs

    constraints = Constraints(
        max_memory_bytes=None if max_memory is None else parse_size(max_memory, "--max-memory"),
        min_decode=min_decode,
        max_disk_bytes=None if max_disk is None else parse_size(max_disk, "--max-disk"),
    )
    run_id, output_dir = resolve_run(run_id, output_dir)
    names = [name.strip() for name in forms.split(",") if name.strip()]
    with make_view(sys.stderr) as view:
        records = deploy_run(
            run_id,
            output_dir,
            forms=names,
            num_rounds=rounds,
            threads=threads,
            device=device,
            constraints=constraints,
            view=view,
        )
        view.phase("report")
        store = RecordStore(output_dir)
        paths = build_report(store)
    (deployed,), problems = deployed_runs([store.get(run_id)], store)
    print_deployment(deployed)
    for problem in dict.fromkeys([*problems, *paths.problems]):
        print(problem, file=sys.stderr)
    for path in paths.written:
        print(path)
    raise typer.Exit(0 if all(record.status is Status.COMPLETED for record in records) else 1)


def export(
    run_id: RunId,
    to: Annotated[Path, typer.Option(help="The new folder to write.", metavar="DIR")],
    form: Annotated[
        str, typer.Option(help="adapter, merged (bf16), merged:fp32, merged:nf4, gguf:TYPE as gguf:Q4_K_M, or another.")
    ] = "adapter",
    check: Annotated[
        bool, typer.Option("--check", help="Serve it, ask it, and compare its greedy answers with lorabench's.")
    ] = False,
    push: Annotated[
        str | None, typer.Option(help="Also put it on the hub, in this repository.", metavar="OWNER/NAME")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A repository that --push makes is for everybody; default: private.")
    ] = False,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Write a run's adapter or merged model as other programs load it, with its model card."""
    from lorabench.cli.run_names import resolve_run
    from lorabench.cli.views.view import make_view
    from lorabench.core.formatting import size
    from lorabench.deploy.export import export_run
    from lorabench.deploy.push import check_push, push_folder

    if push is not None:
        check_push(push)
    run_id, output_dir = resolve_run(run_id, output_dir)
    with make_view(sys.stderr) as view:
        exported = export_run(run_id, output_dir, form=form, to=to, check=check, view=view)
        if push is not None:
            view.phase(f"pushing to {push}")
            page = push_folder(exported.folder, push, public=public)
    for note in exported.notes:
        print(f"{note}.")
    for name, num_bytes in exported.files.items():
        print(f"{exported.folder / name}  {size(num_bytes)}")
    if exported.checked is not None:
        print(f"{exported.checked}.")
    if push is not None:
        print(page)
