"""`lorabench show RUN_ID`: one run on one screen."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorabench.analysis.lengths import by_length
from lorabench.cli.views.deployment import print_deployment
from lorabench.cli.views.text import clean, make_console, percent, sparkline, styled
from lorabench.core.errors import DiskError
from lorabench.core.formatting import bits, duration, number, signed_bits
from lorabench.experiment.schema import RunSpec
from lorabench.methods.registry import method_of
from lorabench.records.columns import SETTINGS
from lorabench.records.schema import RunRecord, Scores, Status
from lorabench.records.store import RecordStore
from lorabench.report.deployment_table import deployed_runs

MAX_CURVE_WIDTH = 60


def show_run(record: RunRecord, store: RecordStore, console: Console | None = None) -> None:
    """Print what a run was, how it went and what came out."""
    console = console or make_console()
    good = record.status in {Status.COMPLETED, Status.STOPPED_EARLY}
    console.print(styled(record.run_id, "bold"), soft_wrap=True)
    reason = f": {clean(record.status_reason)}" if record.status_reason else ""
    console.print(
        Text(f"{record.status.value.replace('_', ' ')}{reason}", style="green" if good else "red"), soft_wrap=True
    )
    _section(console, "What was run", _configuration(record))
    _results(console, record)
    _answers(console, record)
    _tasks(console, record)
    _lengths(console, record, store)
    _curve(console, record, store)
    _section(console, "What it took", _cost(record))
    _samples(console, record)
    _deployments(console, record, store)
    _section(console, "Where and when", _place(record, store))
    for note in record.notes:
        console.print(Text.assemble(("note: ", "yellow"), styled(note)), soft_wrap=True)


def _section(console: Console, title: str, rows: Iterable[tuple[str, str | None]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            table.add_row(Text(name), styled(value))
    _print(console, title, table)


def _print(console: Console, title: str, table: Table) -> None:
    """A table that has rows, under its title."""
    if table.row_count:
        console.print()
        console.print(Text(title, style="bold"))
        console.print(table)


def _configuration(record: RunRecord) -> list[tuple[str, str | None]]:
    adapter = "every weight"
    if method_of(record.spec.adapter).uses("target_modules"):
        adapter = (
            f"{_settings(record.spec, 'adapter', 'method', 'target_modules')}, on {record.spec.adapter.target_modules}"
        )
    facts, budget = record.adapter, record.budget
    return [
        ("experiment", record.experiment),
        ("question", record.question or None),
        ("model", f"{record.spec.model} ({record.spec.model_revision})"),
        ("corpus", f"{record.spec.dataset} ({record.spec.dataset_revision})"),
        ("method", f"{record.spec.adapter.method}: {adapter}"),
        ("training", _settings(record.spec, "training")),
        ("evaluation", _settings(record.spec, "evaluation")),
        ("seed", str(record.spec.seed)),
        ("trainable", f"{facts.trainable_parameters:,} parameters in {facts.num_modules} modules" if facts else None),
        (
            "text",
            f"{budget.train_bytes:,} bytes, {budget.train_tokens:,} tokens, {budget.steps:,} steps" if budget else None,
        ),
    ]


def _settings(spec: RunSpec, section: str, *left_out: str) -> str:
    """The settings of a section of the experiment file; what was not given is left out."""
    shown = [(item.title, item.show(spec)) for item in SETTINGS if item.is_in(section) and item.key not in left_out]
    return ", ".join(f"{title} {value}" for title, value in shown if value is not None)


def _results(console: Console, record: RunRecord) -> None:
    rows: list[tuple[str, Scores | None, Scores | None]] = [
        ("validation", record.base_validation, record.validation),
        ("test", record.base_test, record.test),
        *((f"also on {drift.dataset}", drift.base, drift.adapted) for drift in record.drift),
    ]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name in ("base", "adapted", "change", "perplexity"):
        table.add_column(name, justify="right")
    for name, base, adapted in rows:
        if adapted is None and base is None:
            continue
        change = (
            percent(adapted.bits_per_byte / base.bits_per_byte - 1.0)
            if adapted and base and base.bits_per_byte
            else "–"
        )
        table.add_row(
            styled(name),
            Text(bits(base.bits_per_byte if base else None)),
            Text(bits(adapted.bits_per_byte if adapted else None), style="bold"),
            Text(change),
            Text(number(adapted.perplexity if adapted else None)),
        )
    _print(console, "Bits per byte", table)


def _answers(console: Console, record: RunRecord) -> None:
    """What base and adapter answered to validation and test, by metric."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name in ("questions", "base", "adapted", "change", "cut", "left out"):
        table.add_column(name, justify="right")
    for answers in record.answers:
        for name, figure in answers.metrics.items():
            table.add_row(
                styled(f"{answers.split}, {name}"),
                Text(f"{answers.num_examples:,}"),
                Text(bits(figure.base)),
                Text(bits(figure.adapted), style="bold"),
                Text(signed_bits(figure.adapted - figure.base)),
                Text(f"{answers.base_num_cut:,} / {answers.num_cut:,}"),
                Text(f"{answers.num_left_out:,}"),
            )
    _print(console, "Answers", table)


def _tasks(console: Console, record: RunRecord) -> None:
    """What base and adapter scored on tasks of the harness, each figure with its standard error."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("task", "metric"):
        table.add_column(name)
    for name in ("documents", "base", "adapted", "change"):
        table.add_column(name, justify="right")
    for result in record.tasks:
        for name, metric in result.metrics.items():
            table.add_row(
                styled(result.task),
                styled(name),
                Text(f"{result.num_examples:,}"),
                Text(_with_error(metric.base, metric.base_error)),
                Text(_with_error(metric.adapted, metric.adapted_error), style="bold"),
                Text(_with_error(metric.adapted - metric.base, metric.difference_error, "+")),
            )
    _print(console, "Tasks", table)


def _with_error(value: float, error: float | None, sign: str = "") -> str:
    return f"{value:{sign}.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _lengths(console: Console, record: RunRecord, store: RecordStore) -> None:
    """Perplexity of validation by the length of documents, where their results are there."""
    if record.validation is None:
        return
    try:
        documents = store.documents(record, "validation", record.validation)
    except DiskError as error:
        _damage(console, error)
        return
    if documents is None:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name in ("documents", "base", "adapted", "bits/byte", "change"):
        table.add_column(name, justify="right")
    for bucket in by_length(documents):
        figure, base = bucket.scores.bits_per_byte, bucket.base
        table.add_row(
            Text(bucket.label),
            Text(f"{bucket.scores.num_documents:,}"),
            Text(number(base.perplexity if base else None)),
            Text(number(bucket.scores.perplexity), style="bold"),
            Text(bits(figure)),
            Text(percent(figure / base.bits_per_byte - 1.0) if base and base.bits_per_byte else "–"),
        )
    console.print()
    console.print(Text("Perplexity by length of document", style="bold"))
    console.print(table)


def _damage(console: Console, error: DiskError) -> None:
    console.print(Text.assemble(("\nnote: ", "yellow"), styled(error)), soft_wrap=True)


def _curve(console: Console, record: RunRecord, store: RecordStore) -> None:
    try:
        lines = store.metrics(record)
    except DiskError as error:
        _damage(console, error)
        lines = []
    losses = [
        float(value)
        for line in lines
        if line.get("kind") == "step" and isinstance(value := line.get("loss"), int | float)
    ]
    figures = [(evaluation.step, evaluation.validation.bits_per_byte) for evaluation in record.evaluations]
    width = max(8, min(MAX_CURVE_WIDTH, console.width - 40))
    curve = f"{number(losses[0])} {sparkline(losses, width)} {number(losses[-1])}" if losses else None
    validation = "  ".join(f"step {step:,}: {bits(figure)}" for step, figure in figures)
    best, kept = record.best_validation, record.validation
    _section(
        console,
        "Along the run",
        [
            ("training loss" if store.has_checked_metrics(record) else "training loss, unchecked", curve),
            ("validation", validation or None),
            ("best", f"step {best.step:,}: {bits(best.validation.bits_per_byte)}" if best else None),
            ("kept", f"the last: {bits(kept.bits_per_byte)}" if kept else None),
        ],
    )


def _cost(record: RunRecord) -> list[tuple[str, str | None]]:
    speed, facts = record.speed, record.adapter
    if speed is None:
        return []
    pace = f"{speed.tokens_per_second:,.0f} tokens/s" if speed.tokens_per_second is not None else speed.note
    kept = facts.adapter_bytes if facts is not None else None
    return [
        ("training", f"{duration(speed.train_seconds)}, {pace}"),
        ("evaluation", duration(speed.evaluation_seconds)),
        ("in all", duration(speed.total_seconds)),
        ("peak memory", f"{speed.peak_memory_bytes / 1e6:,.0f} MB"),
        ("base's weights", None if speed.base_bytes is None else f"{speed.base_bytes / 1e6:,.0f} MB"),
        ("adapter", f"{number(kept / 1e6, 3)} MB" if kept is not None else None),
        ("path", f"{facts.execution_path} {facts.execution_reason}".strip() if facts is not None else None),
    ]


def _samples(console: Console, record: RunRecord) -> None:
    for sample in record.samples:
        console.print()
        console.print(Text.assemble(("Continuation of ", "bold"), styled(sample.document_hash[:12])))
        for name, text in (
            ("prompt", sample.prompt),
            ("base", sample.base_continuation),
            ("adapted", sample.continuation),
        ):
            if text is not None:
                console.print(Text.assemble((f"{name:8}", "dim"), styled(text, max_length=400)))


def _deployments(console: Console, record: RunRecord, store: RecordStore) -> None:
    """The forms in which it was deployed, and which to ship."""
    found, problems = deployed_runs([record], store)
    for deployed in found:
        console.print()
        console.print(Text("Deployments", style="bold"), end="")
        print_deployment(deployed, console)
    for problem in problems:
        console.print(Text.assemble(("note: ", "yellow"), styled(problem)), soft_wrap=True)


def _place(record: RunRecord, store: RecordStore) -> list[tuple[str, str | None]]:
    environment = record.environment
    commit = environment.git_commit and environment.git_commit[:12] + (" (changed)" if environment.git_dirty else "")
    return [
        ("device", f"{environment.num_devices} × {environment.device_name} ({environment.device})"),
        ("worker", environment.worker or None),
        ("machine", f"{environment.processor}, {environment.num_cores} cores, {environment.memory_bytes / 1e9:.0f} GB"),
        ("lorabench", " ".join(part for part in (environment.lorabench_version, commit) if part)),
        ("attempt", f"{record.attempt}, taken up again {record.num_resumed} times" if record.num_resumed else None),
        ("time", f"{record.started_at} to {record.finished_at or '…'}"),
        ("command", environment.command),
        ("folder", str(store.run_dir(record.run_id))),
    ]
