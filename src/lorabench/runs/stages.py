"""The stages of a run, each a function of what the stages before it gave: base scores, attach, train, score, save.
`run.py` calls them in this order, after it has prepared the run (`runs.preparing`).

`note` is told at once what a reader of the record should know, so that a failure later on keeps it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lorabench.core.device import peak_memory, peak_reserved_memory, reset_peak_memory
from lorabench.core.errors import CancelledError, DivergedError, ModelError, RunError
from lorabench.core.formatting import plural
from lorabench.core.storage import new_folder, sha256_file
from lorabench.experiment.steps import step_at
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.portable import BaseReference
from lorabench.methods.registry import method_of
from lorabench.models.base import FrozenBase
from lorabench.models.shape import read_model_shape
from lorabench.records.provenance import gpu_clock
from lorabench.records.schema import (
    AdapterFacts,
    Evaluation,
    Rung,
    Scores,
    Speed,
)
from lorabench.runs.context import RunContext
from lorabench.runs.group import GroupWork, write_table
from lorabench.runs.keeping import Held, adapts_beside
from lorabench.runs.preparing import Note, Prepared
from lorabench.runs.rungs import checkpoints_of, reach_rung
from lorabench.runs.task import RunTask
from lorabench.runs.training import TrainingReport
from lorabench.scoring.documents import DocumentScores
from lorabench.trackers.jsonl import METRICS_NAME
from lorabench.training.checkpoints import Position, State, check_values
from lorabench.training.loop import Course, tokens_per_second, train

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "model.safetensors")


@dataclass(frozen=True)
class BaseScores:
    """The base's own scores, per document, before anything is attached."""

    validation: DocumentScores
    test: DocumentScores


def score_base(task: RunTask, work: GroupWork) -> BaseScores:
    """Score the base on the run's corpus. Raises ModelError where its loss is no number."""
    spec = task.spec
    scores = BaseScores(*(work.base_scores(spec.dataset, split, spec) for split in ("validation", "test")))
    for name, nll in (("validation", scores.validation.nll), ("test", scores.test.nll)):
        if not math.isfinite(nll.sum()):
            raise ModelError(
                f"{spec.model}: its own loss on {spec.dataset} ({name}) is not finite in {spec.training.precision}, "
                "before any training; its weights are damaged, or need another precision"
            )
    return scores


@contextmanager
def attached(task: RunTask, work: GroupWork, note: Note, paused: Held | State | None = None) -> Iterator[Held]:
    """Inside, a new adapter is on the base, or that of the paused run; one that may pause has the base for itself.

    Of a run that goes on from disk the state is held, and the adapter has no weights until it is read.

    Raises ModelError where it is not on the planned modules.
    """
    shared = work.shared
    held = paused if isinstance(paused, Held) else _attach(task, work, shared.base, paused)
    work.shared = replace(shared, base=held.adapter.base)
    try:
        if held is not paused:
            _require_as_planned(task, work, held.adapter, note)
        yield held
    finally:
        work.shared = shared
        if held.adapter.base is shared.base:
            held.adapter.detach()


def _attach(task: RunTask, work: GroupWork, base: FrozenBase, state: State | None) -> Held:
    may_pause = task.rung_share is not None and task.stop_reason is None
    own = base.twin() if may_pause and work.keeper is not None and adapts_beside(task) else base
    if state is not None:
        adapter = method_of(task.spec.adapter).attach_empty(own, task.spec.adapter, seed=task.spec.seed)
        with suppress(ValueError):
            check_values(state, dict(adapter.named_parameters()))
            return Held(adapter, state)
        adapter.detach()  # its weights would be read from nowhere
    return Held(attach(own, task.spec.adapter, seed=task.spec.seed))


def _require_as_planned(task: RunTask, work: GroupWork, adapter: Adapter, note: Note) -> None:
    """What was not here yet was planned from the catalogue: where the hub's files are of another shape, they count."""
    targets, trainable, settings = task.target_modules, task.trainable_parameters, task.spec.adapter
    if work.shared.location.info.source == "hub":
        shape = read_model_shape(work.shared.location.folder)
        method = method_of(settings)
        targets = tuple(method.resolve_targets(shape, settings))
        trainable = method.count_trainable(shape, settings, targets)
        if trainable != task.trainable_parameters or {*targets} != {*task.target_modules}:
            note(
                f"the hub's files are not what the catalogue says of {task.spec.model}: {trainable:,} trainable "
                f"parameters in {len(targets)} modules, planned {task.trainable_parameters:,} in "
                f"{len(task.target_modules)}"
            )
    adapter.require_as_planned(targets, trainable)


def describe_adapter(task: RunTask, work: GroupWork, adapter: Adapter) -> AdapterFacts:
    """What is trained, and by which computation."""
    paths = tuple(adapter.module_names)
    return AdapterFacts(
        trainable_parameters=adapter.num_trainable,
        alpha=task.spec.adapter.alpha_value,
        target_modules=tuple(sorted({path.rsplit(".", 1)[-1] for path in paths})),
        module_paths=paths,
        num_modules=len(paths),
        execution_path=work.shared.base.execution.kind,
        execution_reason=work.shared.base.execution.reason,
    )


@dataclass(frozen=True)
class Trained:
    """How far the adapter is trained."""

    position: Position
    num_steps: int
    """Of the whole run."""
    setup_seconds: float
    """From the run's beginning to its first step."""
    total_seconds: float
    """From the run's beginning to its last step."""
    peak_memory_bytes: int
    peak_reserved_bytes: int | None
    base_bytes: int
    """Of the base's weights as they are held."""
    gpu_clock_mhz: int | None
    """Just after its last step."""
    validation: DocumentScores | None
    """Of the last validation, where there was one since the run was taken up."""
    pauses: bool
    """Whether it ends here for now: neither finished nor to be stopped."""
    rung: Rung | None = None
    """At which it is."""

    @property
    def is_finished(self) -> bool:
        """Whether every step is done."""
        return self.position.steps_done >= self.num_steps

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Validation along the run."""
        return tuple(Evaluation(**evaluation) for evaluation in self.position.evaluations)

    @property
    def best_step(self) -> int | None:
        """Where validation was lowest."""
        best = min(self.evaluations, key=lambda item: item.validation.bits_per_byte, default=None)
        return None if best is None else best.step

    @property
    def speed(self) -> Speed:
        """How fast it was, over all parts of the run."""
        position = self.position
        rate, reason = tokens_per_second(position)
        evaluated = position.evaluation_seconds > 0.0
        return Speed(
            tokens_per_second=rate,
            train_seconds=position.train_seconds,
            median_step_seconds=statistics.median(position.step_seconds),
            evaluation_seconds=position.evaluation_seconds,
            evaluation_tokens_per_second=position.evaluation_tokens / position.evaluation_seconds
            if evaluated
            else None,
            setup_seconds=self.setup_seconds,
            total_seconds=self.total_seconds,
            peak_memory_bytes=self.peak_memory_bytes,
            peak_reserved_bytes=self.peak_reserved_bytes,
            base_bytes=self.base_bytes,
            note=reason,
        )


def last_step(task: RunTask, course: Course) -> int | None:
    """After which step the run is to pause; None: at its end. One that is stopped early stays where it is."""
    if task.stop_reason is not None:
        return 0
    return None if task.until_share is None else step_at(course.num_steps, task.until_share)


def train_adapter(
    task: RunTask,
    context: RunContext,
    work: GroupWork,
    prepared: Prepared,
    base_scores: BaseScores,
    held: Held,
    note: Note,
    started: float,
) -> Trained:
    """Train to the end, or until the run is to pause; `started` is the run's beginning on the performance counter.

    A run that is stopped early is taken up where it stands, or as it was at its rung, and trained no further.
    """
    course, base, adapter = prepared.course, work.shared.base, held.adapter
    report = TrainingReport(task, context, work, adapter, course.num_steps, note)
    base.release_memory()  # what scoring and earlier runs left is not this run's peak
    reset_peak_memory(base.device)
    context.view.phase("training")
    rung = None
    if task.rung_share is None:
        until_step, checkpoints = last_step(task, course), held.whole(checkpoints_of(task, context))
        position = train(base, adapter, prepared.text, course, checkpoints, report.hooks(), until_step, context.ranks)
    else:
        reached = reach_rung(task, context, work, prepared.text, course, held, report, base_scores.validation)
        position, rung, report.validation = reached.position, reached.rung, reached.validation
    if base.num_beside:
        note(f"trained side by side with {plural(base.num_beside, 'other run')}, in one pass over the base")
    kept_bytes = 0 if work.keeper is None else work.keeper.num_bytes(base.device.type)
    trained = Trained(
        position=position,
        num_steps=course.num_steps,
        setup_seconds=report.began_at - started,
        total_seconds=time.perf_counter() - started,
        peak_memory_bytes=peak_memory(base.device) - kept_bytes,
        peak_reserved_bytes=peak_reserved_memory(base.device),
        base_bytes=base.num_bytes,
        gpu_clock_mhz=gpu_clock(base.device.index) if base.device.type == "cuda" else None,
        validation=report.validation,
        pauses=task.stop_reason is None and (rung is not None or position.steps_done < course.num_steps),
        rung=rung,
    )
    if trained.is_finished and not trained.pauses and context.should_stop():
        raise CancelledError(f"stopped after the last step of {course.num_steps}, before test was scored")
    if task.stop_reason is not None and not position.steps_done:
        raise RunError(f"the run was to be stopped early ({task.stop_reason}), but it has no checkpoint to stop at")
    return trained


@dataclass(frozen=True)
class Scored:
    """The final scorings, and the files of per-document results."""

    validation: Scores
    test: Scores | None
    """None for a run that was stopped early."""
    files: tuple[str, ...]
    """Names within the run's folder."""


def score_adapter(
    task: RunTask,
    context: RunContext,
    work: GroupWork,
    trained: Trained,
    base: BaseScores,
    rungs: Sequence[Rung],
    folder: Path,
) -> Scored:
    """Validation per document, and of a run that reached its end test, for the first and only time.

    Raises DivergedError where a loss is no number.
    """
    spec = task.spec
    validation = trained.validation
    if validation is None:
        validation = work.score(spec.dataset, "validation", spec)
    finished = {"validation": (validation, base.validation)}
    if task.stop_reason is None:
        context.view.phase("test")
        finished["test"] = (work.score(spec.dataset, "test", spec), base.test)
    files = [rung.documents for rung in rungs]
    for split, (scores, of_base) in finished.items():
        if not math.isfinite(scores.nll.sum()):
            raise DivergedError(trained.position.steps_done, f"the {split} loss")
        files.append(f"documents/{split}.parquet")
        write_table(folder / files[-1], scores.table(of_base))
    test = finished["test"][0].total() if "test" in finished else None
    return Scored(validation.total(), test, tuple(files))


@dataclass(frozen=True)
class Saved:
    """What lies beside the record."""

    adapter_bytes: int
    """The tokenizer beside the adapter apart."""
    files: dict[str, str]
    """SHA-256 by name within the run's folder."""


def save_adapter(adapter: Adapter, work: GroupWork, scored: Scored, folder: Path) -> Saved:
    """Write the adapter whole or not at all, and hash everything that lies beside the record."""
    with new_folder(folder / "adapter") as temporary:
        adapter.save(temporary, BaseReference.of(work.shared.location, work.inputs.model_folder))
    files = [path for path in (folder / "adapter").rglob("*") if path.is_file()]
    num_bytes = sum(path.stat().st_size for path in files if path.name in ADAPTER_FILES)
    files += [folder / name for name in (*scored.files, METRICS_NAME)]
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(files)}
    return Saved(num_bytes, hashes)
