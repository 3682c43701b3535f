"""Commands that take a finished run to where it is used: `export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorabench.cli.options import OutputDir, RunId


def export(
    run_id: RunId,
    to: Annotated[Path, typer.Option(help="The new folder to write.", metavar="DIR")],
    form: Annotated[
        str, typer.Option(help="adapter, merged (bf16), merged:fp32, gguf:TYPE such as gguf:Q8_0 or gguf:Q4_K_M.")
    ] = "adapter",
    push: Annotated[
        str | None, typer.Option(help="Also put it on the hub, in this repository.", metavar="OWNER/NAME")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A repository that --push makes is for everybody; default: private.")
    ] = False,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Write a run's adapter or merged model as other programs load it, with its model card."""
    from lorabench.cli.views.view import make_view
    from lorabench.core.formatting import size
    from lorabench.deploy.export import export_run
    from lorabench.deploy.push import check_push, push_folder

    if push is not None:
        check_push(push)
    with make_view(sys.stderr) as view:
        exported = export_run(run_id, output_dir, form=form, to=to, view=view)
        if push is not None:
            view.phase(f"pushing to {push}")
            page = push_folder(exported.folder, push, public=public)
    for note in exported.notes:
        print(f"{note}.")
    for name, num_bytes in exported.files.items():
        print(f"{exported.folder / name}  {size(num_bytes)}")
    if push is not None:
        print(page)
