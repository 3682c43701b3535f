"""The command line: which commands there are, and what a user's mistake looks like."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from lorabench.cli.commands import catalog, experiment, measure, results, search
from lorabench.cli.commands.deploy import deploy, export
from lorabench.cli.commands.doctor import doctor
from lorabench.cli.commands.init import init
from lorabench.core.errors import LorabenchError
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

app.command("init")(init)
app.command("plan")(experiment.plan)
app.command("run")(experiment.run)
app.command("stop")(search.stop)
app.command("keep")(search.keep)
app.command("report")(results.report)
app.command("watch")(results.watch)
app.command("show")(results.show)
app.command("score-test")(results.score_test)
app.command("reproduce")(results.reproduce)
app.command("deploy")(deploy)
app.command("export")(export)
app.command("evaluate")(measure.evaluate)
app.command("compare")(measure.compare)
app.command("pull-wandb")(results.pull_wandb)
app.command("bench")(measure.bench)
app.command("doctor")(doctor)
app.add_typer(catalog.models_app, name="models")
app.add_typer(catalog.datasets_app, name="datasets")


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
