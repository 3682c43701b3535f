"""Commands on the catalogue: `models` and `datasets`, with what they fetch, build and write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lorabench.cli.options import AsJson, TextField
from lorabench.core.errors import InputError

models_app = typer.Typer(help="The catalogue of base models.", invoke_without_command=True)
datasets_app = typer.Typer(help="The catalogue of corpora.", invoke_without_command=True)


def _with_places(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """The columns, and where entries are listed if some are the user's own."""
    return (*columns, "listed_in") if any(row["listed_in"] != "lorabench" for row in rows) else columns


@models_app.callback()
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the base models and where each comes from."""
    from lorabench.cli.views.rows import print_rows

    if context.invoked_subcommand is None:
        from lorabench.models.catalog import model_rows

        columns = ("name", "parameters", "family", "comes_from", "revision", "download_bytes", "gated", "licence")
        rows = model_rows()
        print_rows(rows, _with_places(columns, rows), as_json)


@models_app.command("path")
def models_path(name: Annotated[str, typer.Argument(help="A catalogue name or a folder.")]) -> None:
    """Print a model's local folder, fetching or building it where needed."""
    from lorabench.cli.views.view import make_view
    from lorabench.models.locate import locate_model

    with make_view(sys.stderr) as view:
        location = locate_model(name, progress=view.progress)
    print(location.folder)


@models_app.command("build")
def models_build(names: Annotated[list[str], typer.Argument(help="Mini models of the catalogue.")]) -> None:
    """Build mini models: their tokenizers and their pretraining on the sample pack."""
    from lorabench.cli.views.view import make_view
    from lorabench.models.catalog import get_model
    from lorabench.models.locate import locate_model
    from lorabench.models.sources.mini import MiniModel

    for name in names:
        if not isinstance(get_model(name), MiniModel):
            raise InputError(f"{name}: only mini models are built; lorabench models lists them")
    for name in names:
        with make_view(sys.stderr) as view:
            location = locate_model(name, progress=view.progress)
        print(location.folder)


@datasets_app.callback()
def datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List the corpora and where each comes from."""
    from lorabench.cli.views.rows import print_rows

    if context.invoked_subcommand is None:
        from lorabench.corpora.catalog import dataset_rows

        columns = ("name", "domain", "comes_from", "revision", "text_bytes", "synthetic", "contaminates", "licence")
        rows = dataset_rows()
        print_rows(rows, _with_places(columns, rows), as_json)


@datasets_app.command("export")
def datasets_export(
    name: Annotated[str, typer.Argument(help="A catalogue name or a file.")],
    output: Annotated[Path, typer.Option(help="The file to write (.jsonl).")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    max_bytes: Annotated[int | None, typer.Option(help="Only what an experiment's budget would take.", min=1)] = None,
    text_field: TextField = "text",
) -> None:
    """Write a split's text, so that other programs can be run on exactly the same text."""
    from lorabench.cli.views.view import make_view
    from lorabench.scoring.export import export_split

    with make_view(sys.stderr) as view:
        num_texts = export_split(
            name, split, output, max_bytes=max_bytes, text_field=text_field, progress=view.progress
        )
    print(f"{output}: {num_texts} texts")
