"""Commands that measure a model without an experiment: `evaluate` and `bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorabench.cli.options import AsJson, DeviceName, TextField


def evaluate(
    model: Annotated[str, typer.Option(help="A catalogue name or a model folder.")],
    data: Annotated[
        str, typer.Option(help="A catalogue name, a hub id, a file, a folder, a glob, or - for standard input.")
    ],
    split: Annotated[
        str | None,
        typer.Option(help="train, validation or test; default: a file whole, validation of a catalogue corpus."),
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Only what an experiment's budget would take.", min=1)] = None,
    adapter: Annotated[Path | None, typer.Option(help="An adapter folder in PEFT's format.")] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Window in tokens; default: the model's own limit, at most 8192.")
    ] = None,
    stride: Annotated[int | None, typer.Option(help="New tokens per window for longer documents.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    text_field: TextField = "text",
    device: DeviceName = None,
    as_json: AsJson = False,
) -> None:
    """Score one model on one text: perplexity, bits per byte."""
    from lorabench.cli.views.rows import print_json
    from lorabench.cli.views.view import make_view
    from lorabench.runs.evaluation import evaluate as evaluate_text

    with make_view(sys.stderr) as view:
        result = evaluate_text(
            model=model,
            data=data,
            split=split,
            max_bytes=max_bytes,
            adapter=adapter,
            context_length=context_length,
            stride=stride,
            precision=precision,
            text_field=text_field,
            device=device,
            progress=view.progress,
        )
    if as_json:
        print_json(result)
    else:
        for key, value in result.items():
            shown = f"{value:,.6g}" if isinstance(value, float) else "–" if value is None else str(value)
            print(f"{key.replace('_', ' '):26} {shown}")


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
