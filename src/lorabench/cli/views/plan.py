"""Prints plans and catalogue rows for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorabench.cli.views.rows import wide_console
from lorabench.core.formatting import duration, rough_size, size
from lorabench.deploy.planning import DeploymentPlan
from lorabench.experiment.measurements import MeasurementRequest
from lorabench.experiment.misfits import Misfit
from lorabench.experiment.plan import Group, Part, Plan
from lorabench.experiment.search_plan import SearchPlan, expected_plan
from lorabench.records.columns import COLUMNS

FEW_STEPS = 4
"""With fewer a rung is warned of."""
MOST_LISTED_RUNS = 100
"""Of a larger experiment each group is one line; `lorabench plan --json` has every run."""
_SIZES = tuple(COLUMNS[key].short_title for key in ("trainable_parameters", "train_bytes", "train_tokens", "steps"))


def print_plan(plan: Plan, searches: Sequence[SearchPlan] = ()) -> None:
    """Every run, grouped by base and corpus (of many runs the groups alone), then the parts, totals, what to know.

    Of a search the runs that enter it, and its rungs.
    """
    console = wide_console()
    entering = [_entering(group, plan.experiment.seeds) for group in plan.groups]
    if sum(len(group.runs) for group in entering) <= MOST_LISTED_RUNS:
        for group in entering:
            _print_runs(console, group)
    else:
        _print_groups(console, entering)
    if len(plan.groups) > 1:
        expected = expected_plan(plan, searches)
        for title, parts in (("model", expected.model_parts), ("corpus", expected.dataset_parts)):
            _print_parts(console, title, parts, is_search=bool(searches))
    for search in searches:
        _print_search(console, search)
    fetched = f"; {rough_size(plan.download_bytes)} to fetch" if plan.download_bytes else ""
    console.print(f"\n{_total(plan, searches)}{fetched}")
    datasets = {dataset.name: dataset for group in plan.groups for dataset in (group.dataset, *group.also_on)}
    about = [f"{dataset.name}: {dataset.notes}" for dataset in datasets.values() if dataset.notes]
    for note in [*plan.warnings, *about]:
        console.print(f"note: {escape(note)}")


def print_misfits(plan: Plan, misfits: Sequence[Misfit]) -> None:
    """Which runs are not expected to fit into the device's memory, and what would; and which fit by checkpointing."""
    whose = "this machine" if plan.device.type == "cpu" else plan.device.name
    there = f"the {size(plan.device.memory_bytes)} of {whose}"
    lines = []
    for misfit in misfits:
        remedies = " or ".join(f"{remedy} ({size(remedy.memory_bytes)})" for remedy in misfit.remedies)
        lines.append(
            f"not expected to fit into {there}: {_runs(len(misfit.run_ids))} of {misfit.model}, up to "
            f"{size(misfit.memory_bytes)}; "
            + (f"what fits: {remedies}" if remedies else "take a smaller model or a larger device")
        )
    if plan.experiment.gradient_checkpointing == "auto":
        models = Counter(run.spec.model for run in plan.runs if run.workload.checkpointing)
        lines += [
            f"{_runs(count)} of {model} with gradient checkpointing, a third more work: without it {there} are too few"
            for model, count in models.items()
        ]
    for line in lines:
        wide_console().print(f"memory: {line}", soft_wrap=True, markup=False, highlight=False)


def print_deployment_plan(deployment: DeploymentPlan) -> None:
    """In which forms the recommended runs are measured at the end, and how long it takes."""
    runs = "the recommended run" + (" of each corpus" if deployment.num_runs > 1 else "")
    rounds = "1 round" if deployment.num_rounds == 1 else f"{deployment.num_rounds} rounds"
    console = wide_console()
    console.print(
        escape(
            f"then {runs} in {len(deployment.forms)} forms ({', '.join(deployment.forms)}), each timed in {rounds}: "
            f"about {duration(deployment.seconds)}"
        ),
        soft_wrap=True,
    )
    for note in deployment.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)


def _entering(group: Group, seeds: Sequence[int]) -> Group:
    """Without the runs that a search may ask for at its end alone."""
    return replace(group, runs=tuple(run for run in group.runs if run.spec.seed in seeds))


def _total(plan: Plan, searches: Sequence[SearchPlan]) -> str:
    """How long everything takes; of a search what is expected, and the most."""
    gpus = f" on {_gpus(plan)} ({plan.device})" if plan.device.is_gpu else ""
    if not searches:
        return f"{len(plan.runs)} runs, about {duration(plan.estimated_seconds)}" + (gpus or _here_and_there(plan))
    expected = plan.estimated_shared_seconds + sum(search.expected_seconds for search in searches)
    at_most = plan.estimated_shared_seconds + sum(search.seconds_at_most for search in searches)
    took = f"a search, expected to take {duration(expected)}, at worst {duration(at_most)}"
    return took + (gpus or " on this machine")


def _print_search(console: Console, search: SearchPlan) -> None:
    seeds = f" with {search.num_seeds} seeds each" if search.num_seeds > 1 else ""
    console.print(
        f"\n[bold]{search.strategy}[/bold] on [bold]{escape(search.corpus)}[/bold]: {search.num_configurations} "
        f"configurations{seeds}, expected {search.expected_runs:.1f} whole runs of training, at most "
        f"{search.runs_at_most:.1f} (all to their end: {search.num_configurations * search.num_seeds})"
    )
    table = plain_table("rung", "share of a run", "configurations", "at most", "cost of one, in runs")
    for number, rung in enumerate(search.rungs, 1):
        name = str(number) if rung.share < 1.0 else "end"
        counts = f"{rung.num_configurations}", f"{rung.num_at_most}"
        table.add_row(name, f"{rung.share:.3g}", *counts, f"{rung.cost:.3g}")
    console.print(table)
    if search.num_listed < search.num_configurations:
        later = search.num_configurations - search.num_listed
        console.print(f"note: {search.num_listed} are listed; the scores of those before them propose {later} more")
    if search.first_steps < FEW_STEPS:
        console.print(f"note: the first rung has {search.first_steps} steps, which tell little; give fewer rungs")


def print_workers(count: int, seconds: float, warnings: Sequence[str]) -> None:
    """How long all runs take with a worker on each of `count` devices."""
    console = wide_console()
    console.print(f"with {count} workers: about {duration(seconds)}" if count > 1 else "with one worker: the same")
    for warning in warnings:
        console.print(f"note: {escape(warning)}", soft_wrap=True)


def _gpus(plan: Plan) -> str:
    count = plan.experiment.num_devices
    return f"{count} × {escape(plan.device.name)}" if count > 1 else escape(plan.device.name)


def _here_and_there(plan: Plan) -> str:
    return f" on this machine, {duration(plan.estimated_gpu_seconds)} on one GPU like an A100"


class RemainingWork(Protocol):
    """The part of `pipeline.remaining.Remaining` that is printed."""

    @property
    def is_untouched(self) -> bool: ...
    @property
    def num_finished(self) -> int: ...
    @property
    def num_to_do(self) -> int: ...
    @property
    def num_to_retry(self) -> int: ...
    @property
    def to_measure(self) -> Mapping[str, MeasurementRequest]: ...
    @property
    def estimated_seconds(self) -> float: ...


def print_remaining(remaining: RemainingWork, output_dir: Path) -> None:
    """What the output folder holds of the plan, and how long the rest would take; nothing where it holds none of it."""
    if remaining.is_untouched:
        return
    parts = [f"{_runs(remaining.num_finished)} finished"] if remaining.num_finished else []
    if remaining.to_measure:
        parts.append(
            f"{_runs(len(remaining.to_measure))} finished and to be measured{_what(remaining.to_measure)}, "
            "not trained again"
        )
    if remaining.num_to_retry:
        parts.append(f"{_runs(remaining.num_to_retry)} did not complete (done again with --retry failed)")
    parts.append(f"{_runs(remaining.num_to_do)} to do")
    left = f": about {duration(remaining.estimated_seconds)}" if remaining.estimated_seconds else ""
    wide_console().print(escape(f"in {output_dir}: {', '.join(parts)}{left}"), soft_wrap=True)


def _what(to_measure: Mapping[str, MeasurementRequest]) -> str:
    names = dict.fromkeys(name for request in to_measure.values() for name in request.also_on)
    samples = ["samples"] if any(request.samples for request in to_measure.values()) else []
    tasks = dict.fromkeys(name for request in to_measure.values() for name in request.tasks)
    answers = ["answers"] if any(request.answers for request in to_measure.values()) else []
    what = [*(f"also on {name}" for name in names), *samples, *(f"task {task}" for task in tasks), *answers]
    return f" ({', '.join(what)})"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _print_runs(console: Console, group: Group) -> None:
    download = group.model.missing_bytes + group.dataset.missing_bytes
    note = f"  (to fetch: {rough_size(download)})" if download else ""
    console.print(f"\n[bold]{escape(group.model.name)}[/bold] on [bold]{escape(group.dataset.name)}[/bold]{note}")
    table = plain_table("run id", *_SIZES, "time", "memory")
    for run in group.runs:
        table.add_row(
            escape(run.run_id),
            f"{run.trainable_parameters:,}",
            rough_size(run.train_bytes),
            f"{'' if run.tokens_are_exact else '≈ '}{run.train_tokens:,}",
            f"{run.steps:,}",
            duration(run.estimated_seconds),
            rough_size(run.estimated_memory_bytes),
        )
    console.print(table)


def _print_groups(console: Console, groups: Sequence[Group]) -> None:
    console.print(
        "\nEach line is a group of runs on one base and one corpus; `lorabench plan --json` lists every run.\n"
    )
    table = plain_table("model", "corpus", "runs", *_SIZES, "time per run", "memory", left=2)
    for group in groups:
        table.add_row(
            escape(group.model.name),
            escape(group.dataset.name),
            str(len(group.runs)),
            _span([run.trainable_parameters for run in group.runs], "{:,}".format),
            _span([run.train_bytes for run in group.runs], rough_size),
            _span([run.train_tokens for run in group.runs], "{:,}".format),
            _span([run.steps for run in group.runs], "{:,}".format),
            _span([run.estimated_seconds for run in group.runs], duration),
            _span([run.estimated_memory_bytes for run in group.runs], rough_size),
        )
    console.print(table)


def _print_parts(console: Console, title: str, parts: Sequence[Part], *, is_search: bool) -> None:
    """Of a search what it is expected to take."""
    console.print()
    counted, here = ("configurations", "expected here") if is_search else ("runs", "time here")
    table = plain_table(title, counted, here, "on one GPU", "to fetch", "disk")
    for part in parts:
        table.add_row(
            escape(part.name),
            str(part.num_runs) if part.num_runs else "only scored",
            duration(3600 * part.estimated_hours),
            duration(3600 * part.estimated_gpu_hours),
            rough_size(part.download_bytes),
            rough_size(part.disk_bytes),
        )
    console.print(table)


def plain_table(*columns: str, left: int = 1) -> Table:
    """Without lines; all but the first columns are numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position < left else "right", overflow="fold")
    return table


def _span(values: Sequence[float], show: Callable[[Any], str]) -> str:
    least, most = show(min(values)), show(max(values))
    return least if least == most else f"{least} to {most}"
