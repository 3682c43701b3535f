"""Commands that measure a model without an experiment: `evaluate`, `compare` and `bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorabench.cli.options import AsJson, DeviceName, OutputDir, TextField


def evaluate(
    model: Annotated[str, typer.Option(help="A catalogue name or a model folder.")],
    data: Annotated[
        list[str],
        typer.Option(
            help="A catalogue name, a hub id, a file, a folder, a glob, or - for standard input; may be given again."
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(help="train, validation or test; default: a file whole, validation of a catalogue corpus."),
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Only what an experiment's budget would take.", min=1)] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="An adapter folder in PEFT's format; may be given again.")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Window in tokens; default: the model's own limit, at most 8192.")
    ] = None,
    stride: Annotated[int | None, typer.Option(help="New tokens per window for longer documents.")] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, fp16, or auto: that of runs, what the hardware has.")
    ] = "auto",
    text_field: TextField = "text",
    device: DeviceName = None,
    as_json: AsJson = False,
) -> None:
    """Score a model, alone or with each of several adapters, on one or more texts: perplexity, bits per byte."""
    from lorabench.cli.views.measured import print_figures, print_figures_table
    from lorabench.cli.views.rows import print_json
    from lorabench.cli.views.view import make_view
    from lorabench.runs.evaluation import Manner, score_texts

    manner = Manner(split, max_bytes, context_length, stride, precision, text_field, device)
    adapters: list[Path | None] = [*adapter] if adapter else [None]
    with make_view(sys.stderr) as view:
        every = score_texts([(model, each) for each in adapters], data, manner, view.progress)
    results = [scored.figures for of_one in every for scored in of_one]
    if as_json:
        for result in results:
            print_json(result)
    elif len(results) == 1:
        print_figures(results[0])
    else:
        print_figures_table(results)


def compare(
    first: Annotated[str, typer.Argument(help="A run, an adapter's folder, or a model.", metavar="FIRST")],
    second: Annotated[str, typer.Argument(help="What it is compared with.", metavar="SECOND")],
    data: Annotated[
        str | None,
        typer.Option(help="Score both on this text; default: the validation text that both runs were scored on."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a corpus: train, validation or test.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Only what an experiment's budget would take.", min=1)] = None,
    context_length: Annotated[int | None, typer.Option(help="Window in tokens; default: each model's own.")] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, fp16, or auto: that of runs, what the hardware has.")
    ] = "auto",
    text_field: TextField = "text",
    output_dir: OutputDir = Path("outputs"),
    device: DeviceName = None,
    as_json: AsJson = False,
) -> None:
    """Compare two runs, adapters or models on one text: the difference paired by document, with its interval."""
    from lorabench.cli.sides import resolve_side
    from lorabench.cli.views.measured import print_comparison
    from lorabench.cli.views.rows import print_json
    from lorabench.cli.views.view import make_view
    from lorabench.runs.comparison import compare_on, compare_recorded
    from lorabench.runs.evaluation import Manner

    sides = resolve_side(first, output_dir), resolve_side(second, output_dir)
    if data is None:
        found = compare_recorded(*sides)
    else:
        manner = Manner(split, max_bytes, context_length, None, precision, text_field, device)
        with make_view(sys.stderr) as view:
            found = compare_on(*sides, data, manner, view.progress)
    if as_json:
        print_json(found.to_json())
    else:
        print_comparison(found)


def bench(
    model: Annotated[str, typer.Option(help="A catalogue name or a model folder.")],
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16; default: what the hardware has.")] = None,
    rank: Annotated[int, typer.Option(help="Of the adapter, on all linear layers.", min=1)] = 16,
    context_length: Annotated[
        int | None, typer.Option(help="Window in tokens; default: 512, several in a table.", min=8)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Windows per step; default: 2, several in a table.", min=1)
    ] = None,
    steps: Annotated[int, typer.Option(help="Timed steps, after two of warm-up.", min=1)] = 10,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="The real size with seeded random weights; no hub is needed.")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="A table over precision, context and batch; default for people.")
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Show where a step's time goes.")] = False,
    device: DeviceName = None,
    as_json: AsJson = False,
) -> None:
    """Measure how fast this machine trains and evaluates a model, next to its own limit."""
    from lorabench.bench.request import Request
    from lorabench.cli.views.rows import print_json
    from lorabench.cli.views.view import make_view
    from lorabench.core.device import choose_device

    nothing_chosen = precision is None and context_length is None and batch_size is None
    request = Request(
        model=model,
        precision=precision,
        rank=rank,
        context_length=context_length,
        batch_size=batch_size,
        num_steps=steps,
        random_weights=random_weights,
        table=table or (nothing_chosen and not as_json and not profile),
        profile=profile,
        device=choose_device(device),
    )
    request.check()
    from lorabench.bench.command import answer

    with make_view(sys.stderr) as view:
        measured = answer(request, view)
    if as_json:
        print_json(measured.to_json())
        return
    from lorabench.cli.views.bench import print_profile, print_results

    print_results(measured.results)
    if measured.parts:
        print_profile(measured.parts)
