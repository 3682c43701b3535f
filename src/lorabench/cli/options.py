"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ExperimentFile = Annotated[Path, typer.Argument(help="The experiment (.yaml).", metavar="EXPERIMENT.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace a value: key=value, such as training.learning_rate=1e-3.", metavar="KEY=VALUE"),
]
OutputDir = Annotated[Path, typer.Option("--output-dir", help="Where runs and results lie.", metavar="DIR")]
DeviceName = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1, mps; default: an NVIDIA GPU where torch can use one."),
]
DeviceNames = Annotated[
    str | None,
    typer.Option("--devices", help="A worker on each: all, numbers of GPUs such as 0,1, or cpu:2 for two workers."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TextField = Annotated[str, typer.Option(help="The field that holds the text.")]
RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN_ID",
        help="An id, its beginning or its last digits, a run's folder, best, best:CORPUS, or best:EXPERIMENT.",
    ),
]
