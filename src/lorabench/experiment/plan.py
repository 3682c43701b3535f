"""From an experiment to the runs it asks for, before anything is spent: ids, sizes, time and memory.

Nothing here loads a model or a corpus; it reads the catalogue, cached manifests and weight-file headers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lorabench.core.device import Device, choose_device
from lorabench.core.errors import ConfigError
from lorabench.corpora.planning import DatasetPlan, plan_dataset
from lorabench.experiment.budgets import with_budget_in_runs
from lorabench.experiment.estimates import estimate_gpu_seconds, estimate_run, start_seconds
from lorabench.experiment.generate import answer_work, check_room
from lorabench.experiment.identity import run_id
from lorabench.experiment.layout import Layout, check_checkpointing, fitting, rows_at_most, workload_of
from lorabench.experiment.measurements import MeasurementRequest
from lorabench.experiment.schema import Experiment, RunSpec, TrainingSettings
from lorabench.experiment.scored_text import scored_bytes
from lorabench.experiment.steps import num_steps
from lorabench.experiment.templates import conversation_notes
from lorabench.experiment.train_text import train_text
from lorabench.experiment.workload import Workload
from lorabench.methods.registry import method_of, require_takes_base, require_takes_optimizer
from lorabench.methods.settings import AdapterSettings
from lorabench.models.catalog import was_trained_on
from lorabench.models.planning import ModelPlan, plan_model

ADAPTER_BYTES = 4
"""Per trainable parameter: adapters are saved in float32."""


@dataclass(frozen=True)
class PlannedRun:
    """One run before it is run. Seconds and bytes are estimates."""

    run_id: str
    spec: RunSpec
    trainable_parameters: int
    saved_parameters: int
    target_modules: tuple[str, ...]
    train_bytes: int
    train_tokens: int
    tokens_are_exact: bool
    steps: int
    estimated_seconds: float
    estimated_gpu_seconds: float
    """On one GPU: this machine's, or else one like an A100."""
    estimated_memory_bytes: int
    workload: Workload
    measures: MeasurementRequest
    """Of the finished adapter; no part of the run's identity."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {
            "run_id": self.run_id,
            "model": self.spec.model,
            "dataset": self.spec.dataset,
            "adapter": self.spec.adapter.model_dump(mode="json"),
            "training": self.spec.training.model_dump(mode="json"),
            "seed": self.spec.seed,
            "trainable_parameters": self.trainable_parameters,
            "target_modules": list(self.target_modules),
            "train_bytes": self.train_bytes,
            "train_tokens": self.train_tokens,
            "tokens_are_exact": self.tokens_are_exact,
            "steps": self.steps,
            "estimated_seconds": round(self.estimated_seconds, 1),
            "estimated_gpu_seconds": round(self.estimated_gpu_seconds, 1),
            "estimated_memory_bytes": self.estimated_memory_bytes,
            "micro_batch_size": self.workload.rows_at_once,
            "gradient_checkpointing": self.workload.checkpointing,
        }


@dataclass(frozen=True)
class Group:
    """Runs that share a base model and a corpus, and so everything that is done once."""

    model: ModelPlan
    dataset: DatasetPlan
    also_on: tuple[DatasetPlan, ...]
    runs: tuple[PlannedRun, ...]
    estimated_base_seconds: float
    estimated_base_gpu_seconds: float


@dataclass(frozen=True)
class Part:
    """What one model, or one corpus, asks for within a plan. Its hours are those of all its runs."""

    name: str
    num_runs: int
    estimated_hours: float
    estimated_gpu_hours: float
    download_bytes: int
    disk_bytes: int
    """On the disk in the end: weights and adapters of a model, prepared and tokenised text of a corpus."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return asdict(self) | {
            "estimated_hours": round(self.estimated_hours, 2),
            "estimated_gpu_hours": round(self.estimated_gpu_hours, 2),
        }


@dataclass(frozen=True)
class Plan:
    """Everything an experiment would do."""

    experiment: Experiment
    device: Device
    """That it was planned for."""
    groups: tuple[Group, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def runs(self) -> list[PlannedRun]:
        """All runs in the order in which they are done."""
        return [run for group in self.groups for run in group.runs]

    @property
    def estimated_seconds(self) -> float:
        """Of the whole command: its start, all runs, and the work they share."""
        return self.estimated_shared_seconds + sum(run.estimated_seconds for run in self.runs)

    @property
    def estimated_shared_seconds(self) -> float:
        """Of all but the runs themselves."""
        return start_seconds(self.device) + sum(group.estimated_base_seconds for group in self.groups)

    @property
    def estimated_gpu_seconds(self) -> float:
        """The same on one GPU."""
        return sum(group.estimated_base_gpu_seconds for group in self.groups) + sum(
            run.estimated_gpu_seconds for run in self.runs
        )

    @property
    def download_bytes(self) -> int:
        """Of models and corpora that are not in the cache yet; each counted once."""
        missing = {("model", group.model.name): group.model.missing_bytes for group in self.groups}
        for group in self.groups:
            for dataset in (group.dataset, *group.also_on):
                missing["dataset", dataset.name] = dataset.missing_bytes
        return sum(missing.values())

    @property
    def model_parts(self) -> list[Part]:
        """What each model asks for."""
        return [
            _part(
                model.name,
                [group for group in self.groups if group.model.name == model.name],
                model.missing_bytes,
                model.weight_bytes,
                with_adapters=True,
            )
            for model in {group.model.name: group.model for group in self.groups}.values()
        ]

    @property
    def dataset_parts(self) -> list[Part]:
        """What each corpus asks for, those that are only scored included."""
        datasets = {dataset.name: dataset for group in self.groups for dataset in (group.dataset, *group.also_on)}
        num_models = len({group.model.name for group in self.groups})
        return [
            _part(
                dataset.name,
                [group for group in self.groups if group.dataset.name == dataset.name],
                dataset.missing_bytes,
                dataset.disk_bytes(num_models),
            )
            for dataset in datasets.values()
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {
            "experiment": self.experiment.name,
            "device": str(self.device),
            "num_runs": len(self.runs),
            "estimated_seconds": round(self.estimated_seconds, 1),
            "estimated_gpu_seconds": round(self.estimated_gpu_seconds, 1),
            "download_bytes": self.download_bytes,
            "warnings": list(self.warnings),
            "parts": {
                "models": [part.to_json() for part in self.model_parts],
                "datasets": [part.to_json() for part in self.dataset_parts],
            },
            "groups": [
                {
                    "model": group.model.name,
                    "model_revision": group.model.revision,
                    "model_download_bytes": group.model.missing_bytes,
                    "dataset": group.dataset.name,
                    "dataset_revision": group.dataset.revision,
                    "dataset_download_bytes": group.dataset.missing_bytes,
                    "runs": [run.to_json() for run in group.runs],
                }
                for group in self.groups
            ],
            "runs": [run.to_json() for run in self.runs],
        }


def _part(
    name: str, groups: Sequence[Group], download_bytes: int, disk_bytes: int, *, with_adapters: bool = False
) -> Part:
    runs = [run for group in groups for run in group.runs]
    seconds = sum(group.estimated_base_seconds for group in groups) + sum(run.estimated_seconds for run in runs)
    gpu_seconds = sum(group.estimated_base_gpu_seconds for group in groups)
    gpu_seconds += sum(run.estimated_gpu_seconds for run in runs)
    if with_adapters:
        disk_bytes += sum(ADAPTER_BYTES * run.saved_parameters for run in runs)
    return Part(name, len(runs), seconds / 3600, gpu_seconds / 3600, download_bytes, disk_bytes)


def make_plan(experiment: Experiment, device: Device | None = None) -> Plan:
    """Expand every axis and check every combination, for `device` (default: the one that runs would take here).

    Raises InputError for what cannot be run.
    """
    device = choose_device() if device is None else device
    experiment = with_budget_in_runs(experiment, lambda one: _mean_seconds(make_plan(one, device)))
    models = [plan_model(reference) for reference in experiment.models]
    most = experiment.largest_train_bytes
    datasets = [plan_dataset(reference, experiment.text_field, most) for reference in experiment.datasets]
    also_on = tuple(plan_dataset(reference, experiment.text_field, most) for reference in experiment.evaluation.also_on)
    _check_names("models", models)
    _check_names("datasets", datasets)
    _check_names("evaluation.also_on", also_on, datasets)
    groups = tuple(
        _make_group(experiment, device, model, dataset, also_on, chosen)
        for called, model in zip(experiment.models, models, strict=True)
        for corpus, dataset in zip(experiment.datasets, datasets, strict=True)
        if (chosen := experiment.combinations(called, corpus))
    )
    warnings = [*filter(None, [device.note]), *_warnings(experiment, groups)]
    warnings += conversation_notes((group.model, group.dataset) for group in groups)
    return Plan(experiment=experiment, device=device, groups=groups, warnings=tuple(warnings))


def _mean_seconds(plan: Plan) -> float:
    return sum(run.estimated_seconds for run in plan.runs) / len(plan.runs)


def _check_names(key: str, plans: Sequence[ModelPlan | DatasetPlan], others: Sequence[DatasetPlan] = ()) -> None:
    """Raise ConfigError where two entries are one, or where a name that the user gave stands for two corpora."""
    for index, plan in enumerate(plans):
        for other in (*others, *plans[:index]):
            if plan.name == other.name and plan.revision != other.revision:
                raise ConfigError(
                    f"{key}: {other.reference} and {plan.reference} are both called {plan.name}; give one another name"
                )
        for other in plans[:index]:
            if plan.name == other.name:
                raise ConfigError(f"{key}: {other.reference} and {plan.reference} are the same ({plan.name}); list one")


def _make_group(
    experiment: Experiment,
    device: Device,
    model: ModelPlan,
    dataset: DatasetPlan,
    also_on: Sequence[DatasetPlan],
    combinations: Sequence[tuple[AdapterSettings, TrainingSettings]],
) -> Group:
    others = tuple(other for other in also_on if other.name != dataset.name)
    runs = plan_runs(experiment, device, (model, dataset, others), combinations)
    contexts = {(run.spec.training.context_length, run.spec.training.precision, run.spec.quantization) for run in runs}
    scoring = [
        Workload.evaluation_only(
            num_tokens=model.tokens_in(scored_bytes(experiment.evaluation, dataset, others)),
            context_length=context,
            precision=precision,
            quantization=quantization,
            answers=answer_work(runs[0].measures.answers, dataset),
        )
        for context, precision, quantization in contexts
    ]
    return Group(
        model=model,
        dataset=dataset,
        also_on=others,
        runs=runs,
        estimated_base_seconds=sum(estimate_run(model.shape, work, device).seconds for work in scoring),
        estimated_base_gpu_seconds=sum(estimate_gpu_seconds(model.shape, work, device) for work in scoring),
    )


def plan_runs(
    experiment: Experiment,
    device: Device,
    place: tuple[ModelPlan, DatasetPlan, Sequence[DatasetPlan]],
    combinations: Sequence[tuple[AdapterSettings, TrainingSettings]],
) -> tuple[PlannedRun, ...]:
    """Of every combination with every seed, each once; `place` has what else is scored last. Raises InputError."""
    model, dataset, others = place
    measures = MeasurementRequest.of(experiment.evaluation, dataset, others)
    distinct: dict[str, PlannedRun] = {}
    for quantization, (adapter, given) in itertools.product(experiment.quantizations, combinations):
        for seed in experiment.all_seeds:
            spec = RunSpec(
                model=model.name,
                model_revision=model.revision,
                dataset=dataset.name,
                dataset_revision=dataset.revision,
                adapter=adapter,
                training=_choose_precision(given, device),
                evaluation=experiment.evaluation.scoring(),
                quantization=quantization,
                seed=seed,
            )
            run = _plan_run(experiment, device, model, dataset, others, measures, spec)
            distinct.setdefault(run.run_id, run)
    return tuple(distinct.values())


def _choose_precision(training: TrainingSettings, device: Device) -> TrainingSettings:
    if training.precision != "auto":
        return training
    return training.model_copy(update={"precision": device.precision})


def _plan_run(
    experiment: Experiment,
    device: Device,
    model: ModelPlan,
    dataset: DatasetPlan,
    others: Sequence[DatasetPlan],
    measures: MeasurementRequest,
    spec: RunSpec,
) -> PlannedRun:
    adapter, training = spec.adapter, spec.training
    method = method_of(adapter)
    require_takes_base(adapter, spec.quantization)
    require_takes_optimizer(adapter, training.optimizer)
    model.check_context(training.context_length, method.num_virtual_tokens(adapter), adapter.method)
    check_room(measures.answers, model.name, model.shape.max_context_length)
    targets = tuple(method.resolve_targets(model.shape, adapter))
    text, tokens_are_exact = train_text(experiment, model, dataset, training.train_bytes)
    checkpointing = check_checkpointing(spec, experiment.gradient_checkpointing)
    rows = rows_at_most(spec, device, device.memory_bytes, experiment.num_devices)
    wanted = replace(
        workload_of(spec, targets, Layout(rows)),
        sharing=experiment.num_devices if device.is_gpu else 1,
        train_tokens=text.num_tokens * training.epochs,
        evaluation_tokens=model.tokens_in(scored_bytes(experiment.evaluation, dataset, others, along_the_run=True)),
        writes_samples=experiment.evaluation.samples > 0,
        answers=answer_work(measures.answers, dataset),
    )
    fewer_rows = training.micro_batch_size is None
    workload = fitting(model.shape, wanted, device.memory_bytes, checkpointing, fewer_rows=fewer_rows)
    estimate = estimate_run(model.shape, workload, device)
    return PlannedRun(
        run_id=run_id(spec),
        spec=spec,
        trainable_parameters=method.count_trainable(model.shape, adapter, targets),
        saved_parameters=method.count_saved(model.shape, adapter, targets),
        target_modules=targets,
        train_bytes=text.num_bytes,
        train_tokens=text.num_tokens,
        tokens_are_exact=tokens_are_exact,
        steps=num_steps(-(-text.num_tokens // training.context_length), training),
        estimated_seconds=estimate.seconds,
        estimated_gpu_seconds=estimate_gpu_seconds(model.shape, workload, device),
        estimated_memory_bytes=estimate.memory_bytes,
        workload=workload,
        measures=measures,
    )


def _warnings(experiment: Experiment, groups: Sequence[Group]) -> list[str]:
    models = {group.model.name: group.model.pinned for group in groups}
    datasets = {plan.name: plan.pinned for group in groups for plan in (group.dataset, *group.also_on)}
    found: list[str] = []
    if num_same := experiment.num_runs - sum(len(group.runs) for group in groups):
        found.append(
            f"{num_same} of the {experiment.num_runs} combinations ask for the same run as another, because a setting "
            "means nothing there (full has no rank) or means the same in two spellings; each run is done once"
        )
    if experiment.evaluation.tasks:
        found.append("evaluation.tasks take time that is not estimated: the harness decides how much they compute")
    for what, pinned in (("weights", models), ("text", datasets)):
        names = [name for name, is_pinned in pinned.items() if not is_pinned]
        if names:
            are = "is" if len(names) == 1 else "are"
            found.append(f"{', '.join(names)} {are} not pinned to a revision: {what} may change on the hub")
    found.extend(
        f"{group.model.name} was trained on {group.dataset.name}: its scores there flatter it"
        for group in groups
        if was_trained_on(group.model.name, group.dataset.contaminates)
    )
    return found
