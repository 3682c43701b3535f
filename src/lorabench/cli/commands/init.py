"""The command `init`: an experiment file to begin with, made for a text and this machine, or one that is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorabench.cli.options import AsJson, DeviceName, TextField
from lorabench.core.errors import InputError

GPU_MINUTES = 60.0
PROCESSOR_MINUTES = 20.0
SAMPLE = "news"
"""The corpus of the sample pack that is proposed where none is given."""


def init(
    data: Annotated[
        str | None, typer.Argument(help="Your text: a file, or a catalogue name; default: a sample.", metavar="[DATA]")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The experiment file to write; default: NAME.yaml here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="List the experiments that are shipped, and write none.")
    ] = False,
    from_: Annotated[str | None, typer.Option("--from", help="Copy the shipped experiment of this name.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="How long it may take; default: 20, with a GPU 60.", min=0.1)
    ] = None,
    text_field: TextField = "text",
    device: DeviceName = None,
    as_json: AsJson = False,
) -> None:
    """Write a short experiment that fits a text and this machine, and show its plan; nothing is run."""
    if (list_, from_ is not None, data is not None).count(True) > 1:
        raise InputError("init: DATA, --from and --list exclude one another; give one of them")
    if as_json and not list_:
        raise InputError("init: --json is accepted with --list only; `lorabench plan --json` has a plan for programs")
    if list_:
        _list(as_json)
    elif from_ is not None:
        _copy(from_, output, force)
    else:
        _propose(data or SAMPLE, output, force, minutes, text_field, device)


def _list(as_json: bool) -> None:
    from lorabench.cli.views.rows import print_rows
    from lorabench.experiment.schema import load_experiment
    from lorabench.experiment.shipped import shipped_experiments

    experiments = {name: load_experiment(path) for name, path in shipped_experiments().items()}
    rows = [
        {"name": name, "runs": experiment.num_runs, "question": experiment.question}
        for name, experiment in experiments.items()
    ]
    print_rows(rows, ("name", "runs", "question"), as_json)


def _copy(name: str, output: Path | None, force: bool) -> None:
    from lorabench.experiment.shipped import find_shipped

    file = find_shipped(name)
    target = output or Path(f"{name}.yaml")
    _write(target, file.read_text(encoding="utf-8"), force)
    print(f"written: {target} (lorabench plan {target} shows what it would do)")


def _propose(
    data: str, output: Path | None, force: bool, minutes: float | None, text_field: str, device_name: str | None
) -> None:
    from lorabench.cli.commands.doctor import hub_is_reachable
    from lorabench.cli.views.plan import print_plan
    from lorabench.core.device import choose_device
    from lorabench.core.home import user_path
    from lorabench.core.revisions import safe_name
    from lorabench.experiment.proposal import propose

    target = output or Path(f"{safe_name(Path(data).stem)}.yaml")
    _check_free(target, force)
    elsewhere = target.parent != Path() and user_path(data).exists()
    reference = str(user_path(data).absolute()) if elsewhere else data
    device = choose_device(device_name)
    minutes = minutes or (GPU_MINUTES if device.is_gpu else PROCESSOR_MINUTES)
    proposal = propose(reference, text_field, device, has_hub=hub_is_reachable(), max_seconds=60 * minutes)
    _write(target, proposal.text, force)
    print("\n".join(proposal.facts))
    print(f"written: {target} (lorabench run {target} does what follows)")
    print_plan(proposal.plan)


def _check_free(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise InputError(f"{target}: there is such a file already; give --force to replace it, or --output FILE")


def _write(target: Path, text: str, force: bool) -> None:
    from lorabench.core.storage import write_atomically

    _check_free(target, force)
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}; make it first, or give another --output")
    if target.is_dir():
        raise InputError(f"{target}: it is a folder; give a file by --output")
    write_atomically(target, text.encode("utf-8"))
