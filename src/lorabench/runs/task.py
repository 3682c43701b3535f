"""What one run takes: everything that doing it needs, as plain values that travel to another process or machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field

from lorabench.core.home import user_path
from lorabench.core.settings import Frozen
from lorabench.corpora.planning import DatasetPlan
from lorabench.corpora.references import CorpusReference, absolute, parts_of, write_reference
from lorabench.experiment.measurements import MeasurementRequest
from lorabench.experiment.plan import Group, Plan, PlannedRun
from lorabench.experiment.schema import Checkpointing, RunSpec
from lorabench.experiment.search import SearchSettings
from lorabench.models.locate import is_model_path
from lorabench.records.schema import Evaluation, Rung, RunRecord


class CorpusInput(Frozen):
    """A corpus that a run trains on, or is scored on."""

    name: str
    reference: str | CorpusReference
    """A catalogue name, or an absolute path; by its parts where there are several."""
    revision: str


class SharedInputs(Frozen):
    """What the runs of a group read. Runs with the same inputs share the loaded base and the tokenised text."""

    model: str
    """A catalogue name, or an absolute path."""
    corpora: tuple[CorpusInput, ...]
    text_field: str
    largest_train_bytes: int
    """The largest budget of the group: how much of a corpus is drawn from."""
    model_folder: str = ""
    """Where the model lies on the machine that keeps the results; empty: it is this one."""

    @classmethod
    def of(cls, group: Group, text_field: str) -> SharedInputs:
        """What the runs of a planned group read."""
        model = group.model.reference
        return cls(
            model=str(user_path(model).absolute()) if is_model_path(model) else model,
            corpora=tuple(_corpus_input(plan) for plan in (group.dataset, *group.also_on)),
            text_field=text_field,
            largest_train_bytes=max(run.spec.training.train_bytes for run in group.runs),
        )

    def corpus(self, name: str) -> CorpusInput:
        """The corpus of that name."""
        (found,) = (corpus for corpus in self.corpora if corpus.name == name)
        return found


class RunOptions(Frozen):
    """What the user of `lorabench run` chose for all runs."""

    output_dir: Path
    """Absolute."""
    device: str
    """torch's name for it."""
    checkpoint_seconds: float = 60.0
    trackers: tuple[str, ...] = ()
    upload_adapters: bool = False


class RunTask(Frozen):
    """One run to be done, or to be gone on with."""

    run_id: str
    spec: RunSpec
    experiment: str
    question: str = ""
    references: dict[str, str] = Field(default_factory=dict)
    """What the experiment calls things, as the record keeps it (`RunRecord.references`)."""
    inputs: SharedInputs
    target_modules: tuple[str, ...]
    """That the adapter was planned on."""
    trainable_parameters: int
    measures: MeasurementRequest
    """Of the finished adapter."""
    planned_steps: int
    """About how many steps it will have; the training text decides."""
    memory_bytes: int = 0
    """About how much the device's memory has to hold; 0: unknown."""
    options: RunOptions
    num_devices: int = 1
    """That share the run."""
    gradient_checkpointing: Checkpointing = "auto"
    """Whether layers are computed once more in the backward pass; auto: where the run does not fit otherwise."""
    num_attempts_to_repeat: int = 0
    """A record of a run that did not complete is replaced where it is of at most this attempt."""
    until_share: float | None = Field(default=None, gt=0.0, le=1.0)
    """Pause after this share of the run's steps, counted from its beginning; None: do it to its end."""
    rung_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Pause at this share of the run's steps, scored as though the run ended there; None: at no rung."""
    goes_past_stop: bool = False
    """A run that was stopped early is gone on with."""
    search: SearchSettings | None = None
    """Of the experiment, as the record keeps it."""
    stop_reason: str | None = None
    """Why a run that paused is stopped early, where it stands; None: it is not."""


class TaskState(StrEnum):
    """What became of a task."""

    DONE = "done"
    """The run has ended, however it ended, and has a new record."""
    MEASURED = "measured"
    """The run had finished before; its adapter was measured."""
    PAUSED = "paused"
    """The run has reached `until_share`, and a checkpoint from which it goes on."""
    HELD = "held"
    """Another process is doing the run."""
    LEFT_ALONE = "left_alone"
    """The run's lease cannot be taken, for a reason that the outcome names."""
    STOPPED = "stopped"
    """The user stopped the command before the run came to a record."""
    UNNEEDED = "unneeded"
    """Another process has done the run meanwhile."""


class TaskOutcome(Frozen):
    """What became of a task; it travels back from where the run was done."""

    run_id: str
    state: TaskState
    record: RunRecord | None = None
    """Of a run that was done or measured."""
    problem: str = ""
    """Why a run is left alone."""
    steps_done: int = 0
    num_steps: int = 0
    """Of the whole run."""
    evaluations: tuple[Evaluation, ...] = ()
    """Validation figures so far."""
    rungs: tuple[Rung, ...] = ()
    """That the run has reached so far."""


def make_tasks(plan: Plan, options: RunOptions) -> dict[str, RunTask]:
    """A task for every planned run, by run id."""
    return {
        run.run_id: _make_task(plan, run, inputs, references, options)
        for group in plan.groups
        for inputs, references in [(SharedInputs.of(group, plan.experiment.text_field), _references(plan, group))]
        for run in group.runs
    }


def _make_task(
    plan: Plan, run: PlannedRun, inputs: SharedInputs, references: dict[str, str], options: RunOptions
) -> RunTask:
    return RunTask(
        run_id=run.run_id,
        spec=run.spec,
        experiment=plan.experiment.name,
        question=plan.experiment.question,
        references=references,
        inputs=inputs,
        target_modules=run.target_modules,
        trainable_parameters=run.trainable_parameters,
        measures=run.measures,
        planned_steps=run.steps,
        memory_bytes=run.estimated_memory_bytes,
        options=options,
        num_devices=plan.experiment.num_devices,
        gradient_checkpointing=plan.experiment.gradient_checkpointing,
        search=plan.experiment.search,
    )


def _corpus_input(plan: DatasetPlan) -> CorpusInput:
    reference = plan.reference
    parts = parts_of(reference).with_paths(absolute)
    if parts.files:
        reference = parts if isinstance(reference, CorpusReference) else str(parts)
    return CorpusInput(name=plan.name, reference=reference, revision=plan.revision)


def _references(plan: Plan, group: Group) -> dict[str, str]:
    """What the experiment calls things, where that is not a catalogue name; paths are made absolute."""
    kept = {}
    if is_model_path(group.model.reference):
        kept["model"] = str(user_path(group.model.reference).absolute())
    corpora = {"dataset": group.dataset} | {f"also_on:{other.name}": other for other in group.also_on}
    kept |= {key: written for key, corpus in corpora.items() if (written := write_reference(corpus.reference))}
    text_field = plan.experiment.text_field
    return kept | ({"text_field": text_field} if text_field != "text" else {})
