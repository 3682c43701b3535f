"""The command line: parse, call, print. Every command does what the function of the same name does from Python."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from lorabench.core.errors import InputError, LorabenchError
from lorabench.core.redaction import without_secrets
from lorabench.core.version import VERSION

MAX_SENTENCE = 2000

app = typer.Typer(
    name="lorabench",
    help="Choose a base model and a LoRA configuration for your own text, with evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="The catalogue of base models.", invoke_without_command=True)
datasets_app = typer.Typer(help="The catalogue of corpora.", invoke_without_command=True)
app.add_typer(models_app, name="models")
app.add_typer(datasets_app, name="datasets")

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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lorabench {VERSION}")
        raise typer.Exit


@app.callback()
def lorabench(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Choose a base model and a LoRA configuration for your own text, with evidence."""


@app.command()
def plan(
    experiment: ExperimentFile,
    set_: Overrides = None,
    output_dir: OutputDir = Path("outputs"),
    device: DeviceName = None,
    as_json: AsJson = False,
) -> None:
    """Show every run an experiment would do, and what of it the output folder already holds; nothing is run."""
    from lorabench.cli.views.plan import print_plan, print_remaining
    from lorabench.core.device import choose_device
    from lorabench.experiment.plan import make_plan
    from lorabench.experiment.schema import load_experiment
    from lorabench.records.store import RecordStore
    from lorabench.runs.remaining import find_remaining, with_recorded_ids

    store = RecordStore(output_dir)
    planned = make_plan(load_experiment(experiment, set_ or []), choose_device(device))
    planned = with_recorded_ids(planned, store)
    remaining = find_remaining(planned, store)
    if as_json:
        _print_json(planned.to_json() | {"remaining": remaining.to_json()})
    else:
        print_plan(planned)
        print_remaining(remaining, output_dir)


@app.command()
def run(
    experiment: ExperimentFile,
    output_dir: OutputDir = Path("outputs"),
    set_: Overrides = None,
    tracker: Annotated[
        str, typer.Option(help="wandb, trackio, tensorboard, several separated by commas, or none.")
    ] = "wandb",
    upload_adapters: Annotated[bool, typer.Option(help="Give each adapter to the tracker as an artifact.")] = False,
    retry: Annotated[str | None, typer.Option(help="failed: do the runs again that did not complete.")] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="Time between checkpoints.", min=0.0)] = 60.0,
    device: DeviceName = None,
) -> None:
    """Do what is missing of an experiment; run it again to go on where it stopped."""
    from lorabench.cli.views import print_outcome
    from lorabench.experiment.schema import load_experiment
    from lorabench.records.store import RecordStore
    from lorabench.report.build import ties_of
    from lorabench.runs.scheduler import run_experiment

    if retry not in (None, "failed"):
        raise InputError(f"--retry {retry}: unknown state; accepted: failed")
    outcome = run_experiment(
        load_experiment(experiment, set_ or []),
        output_dir,
        trackers=[name.strip() for name in tracker.split(",")],
        upload_adapters=upload_adapters,
        retry_failed=retry == "failed",
        checkpoint_seconds=checkpoint_seconds,
        device=device,
    )
    print_outcome(outcome, ties_of(outcome.records, RecordStore(output_dir)))
    raise typer.Exit(outcome.exit_code)


@app.command()
def report(
    output_dir: Annotated[Path, typer.Argument(help="The output folder.", metavar="[DIR]")] = Path("outputs"),
) -> None:
    """Rebuild table, summary, figures and page from the records alone."""
    from lorabench.records.store import RecordStore
    from lorabench.report.build import build_report

    if not (output_dir / "runs").is_dir():
        raise InputError(f"{output_dir}: there are no runs here; give the folder that lorabench run wrote to")
    paths = build_report(RecordStore(output_dir))
    for problem in paths.problems:
        print(problem, file=sys.stderr)
    for path in paths.written:
        print(path)


@app.command()
def show(run_id: Annotated[str, typer.Argument(metavar="RUN_ID")], output_dir: OutputDir = Path("outputs")) -> None:
    """Show one run."""
    from lorabench.cli.views import show_run
    from lorabench.records.store import RecordStore

    store = RecordStore(output_dir)
    show_run(store.get(run_id), store)


@app.command("score-test")
def score_test(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID")],
    again: Annotated[bool, typer.Option("--again", help="Yes, a second time; the record is flagged for ever.")] = False,
    output_dir: OutputDir = Path("outputs"),
    device: DeviceName = None,
) -> None:
    """Score a finished run on test a second time: refused without --again."""
    from lorabench.cli.views import make_view
    from lorabench.records.store import RecordStore
    from lorabench.report.build import rebuild_table
    from lorabench.runs.second_scoring import score_test_again

    with make_view(sys.stderr) as view:
        record = score_test_again(run_id, output_dir, again=again, view=view, device=device)
    rebuild_table(RecordStore(output_dir))
    print(f"{run_id}: test scored {record.num_test_scorings} times; the record and every table say so")


@app.command()
def reproduce(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID")], output_dir: OutputDir = Path("outputs")
) -> None:
    """Do one run again in a fresh process, from its record, and compare."""
    from lorabench.runs.reproduction import print_reproduction
    from lorabench.runs.reproduction import reproduce as reproduce_run

    result = reproduce_run(run_id, output_dir)
    print_reproduction(result)
    raise typer.Exit(0 if result.identical else 1)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="A catalogue name or a model folder.")],
    data: Annotated[str, typer.Option(help="A catalogue name, or a .txt, .jsonl or .parquet file.")],
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
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    device: DeviceName = None,
    as_json: AsJson = False,
) -> None:
    """Score one model on one text: perplexity, bits per byte."""
    from lorabench.cli.views import make_view
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
        _print_json(result)
    else:
        for key, value in result.items():
            shown = f"{value:,.6g}" if isinstance(value, float) else "–" if value is None else str(value)
            print(f"{key.replace('_', ' '):26} {shown}")


@app.command("pull-wandb")
def pull_wandb(
    project: Annotated[str, typer.Argument(help="NAME or ENTITY/NAME.", metavar="PROJECT")],
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Download the runs of a Weights & Biases project: configuration, summary, every step."""
    from lorabench.cli.views import make_view
    from lorabench.trackers.pull_wandb import pull_wandb as pull

    with make_view(sys.stderr) as view:
        runs = pull(project, output_dir, progress=view.progress)
    for pulled in runs:
        print(f"{pulled.folder}: {pulled.num_steps} steps, {pulled.num_evaluations} evaluations")
    print(f"{len(runs)} runs of {project}")


@app.command()
def bench(
    model: Annotated[str, typer.Option(help="A catalogue name or a model folder.")],
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16; default: what the hardware has.")] = None,
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
    from lorabench.cli.views import make_view
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
        _print_json(measured.to_json())
        return
    from lorabench.cli.views.bench import print_profile, print_results

    print_results(measured.results)
    if measured.parts:
        print_profile(measured.parts)


@models_app.callback()
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the base models and where each comes from."""
    if context.invoked_subcommand is None:
        from lorabench.experiment.catalog import model_rows

        columns = ("name", "parameters", "family", "comes_from", "revision", "download_bytes", "gated", "licence")
        _print_rows(model_rows(), columns, as_json)


@models_app.command("path")
def models_path(name: Annotated[str, typer.Argument(help="A catalogue name or a folder.")]) -> None:
    """Print a model's local folder, fetching or building it where needed."""
    from lorabench.cli.views import make_view
    from lorabench.models.locate import locate_model

    with make_view(sys.stderr) as view:
        location = locate_model(name, progress=view.progress)
    print(location.folder)


@models_app.command("build")
def models_build(names: Annotated[list[str], typer.Argument(help="Mini models of the catalogue.")]) -> None:
    """Build mini models: their tokenizers and their pretraining on the sample pack."""
    from lorabench.cli.views import make_view
    from lorabench.experiment.catalog import get_model
    from lorabench.models.locate import locate_model

    for name in names:
        if get_model(name).source != "mini":
            raise InputError(f"{name}: only mini models are built; lorabench models lists them")
    for name in names:
        with make_view(sys.stderr) as view:
            location = locate_model(name, progress=view.progress)
        print(location.folder)


@datasets_app.callback()
def datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List the corpora and where each comes from."""
    if context.invoked_subcommand is None:
        from lorabench.experiment.catalog import dataset_rows

        columns = ("name", "domain", "comes_from", "revision", "text_bytes", "synthetic", "contaminates", "licence")
        _print_rows(dataset_rows(), columns, as_json)


@datasets_app.command("export")
def datasets_export(
    name: Annotated[str, typer.Argument(help="A catalogue name or a file.")],
    output: Annotated[Path, typer.Option(help="The file to write (.jsonl).")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    max_bytes: Annotated[int | None, typer.Option(help="Only what an experiment's budget would take.", min=1)] = None,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
) -> None:
    """Write a split's documents, so that other programs can be run on exactly the same text."""
    from lorabench.cli.views import make_view
    from lorabench.corpora.export import export_split

    with make_view(sys.stderr) as view:
        num_documents = export_split(
            name, split, output, max_bytes=max_bytes, text_field=text_field, progress=view.progress
        )
    print(f"{output}: {num_documents} documents")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Show what this machine has, and what that means."""
    from lorabench.cli.doctor import examine, print_findings

    findings = examine()
    if as_json:
        _print_json({finding.name: finding.value for finding in findings})
    else:
        print_findings(findings)


def _print_json(values: Any) -> None:
    print(json.dumps(values, ensure_ascii=False, allow_nan=False))


def _print_rows(rows: list[dict[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    if as_json:
        _print_json(rows)
        return
    from lorabench.cli.views.plan import print_rows

    print_rows(rows, columns)


def main() -> None:
    """Run the command line; a user's mistake is one sentence and an exit code, never a traceback."""
    from lorabench.cli.views.streams import open_streams, output_problem

    open_streams()
    if sys.flags.optimize > 1:
        _end("Python leaves docstrings out (PYTHONOPTIMIZE=2 or -OO), which Transformers needs; use at most 1 or -O", 2)
    try:
        code = app(standalone_mode=False)
        problem = output_problem()
        if problem is not None:
            _end(f"standard output cannot be written: {problem.strerror or problem}", 1)
    except LorabenchError as error:
        _end(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _end("stopped", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _end(f"{where}{error.strerror or error}", 1)
    except Exception as error:
        _end_for_usage(error)
    raise SystemExit(code if isinstance(code, int) else 0)


def _end_for_usage(error: Exception) -> None:
    """One sentence for arguments that mean nothing; anything else is a mistake of ours and goes through."""
    explain = getattr(error, "format_message", None)
    if explain is None:
        raise error
    message = str(explain())
    if message.startswith("Usage:"):  # no arguments at all
        print(message)
        raise SystemExit(2)
    context = getattr(error, "ctx", None)
    _end(f"{message.rstrip('.')}; see {getattr(context, 'command_path', 'lorabench')} --help", 2)


def _end(sentence: str, exit_code: int) -> NoReturn:
    line = without_secrets(sentence)[:MAX_SENTENCE]
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    print(f"lorabench: {line}", file=sys.stderr)
    raise SystemExit(exit_code)
