"""One run from its plan to its record, whatever becomes of it."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from lorabench.core.device import peak_memory, reset_peak_memory
from lorabench.core.errors import CancelledError, ModelError, OutOfMemoryRunError, is_environment_problem
from lorabench.core.redaction import without_secrets
from lorabench.experiment.plan import PlannedRun
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.portable import BaseReference
from lorabench.methods.registry import method_of
from lorabench.models.shape import read_model_shape
from lorabench.records import provenance
from lorabench.records.schema import Evaluation, RunRecord, Scores, Speed, Status
from lorabench.runs.context import RunContext
from lorabench.runs.draft import Draft, check_finite, failure
from lorabench.runs.group import GroupWork
from lorabench.runs.measuring import Measurements
from lorabench.runs.memory import is_out_of_memory
from lorabench.scoring.documents import DocumentScores
from lorabench.trackers.base import TrackedRun, evaluation_values
from lorabench.training.checkpoints import Position, remove_checkpoints
from lorabench.training.loop import Hooks, tokens_per_second, train


def execute_run(
    context: RunContext,
    open_work: Callable[[], GroupWork],
    planned: PlannedRun,
    references: dict[str, str],
    previous: RunRecord | None,
) -> RunRecord:
    """Do one run and write its record. `open_work` loads what the group shares, the first time.

    Whatever goes wrong becomes the record's status and reason; only a record that cannot be written is raised.
    """
    draft = Draft(context.store.run_dir(planned.run_id))
    started = time.perf_counter()
    draft.values.update(
        run_id=planned.run_id,
        attempt=1 if previous is None else previous.attempt + (not previous.goes_on),
        experiment=context.experiment,
        question=without_secrets(context.question),
        spec=planned.spec,
        references={key: without_secrets(reference) for key, reference in references.items()},
        environment=context.environment,
        started_at=provenance.now(),
        num_test_scorings=0 if previous is None else previous.num_test_scorings,
    )
    status, reason = Status.COMPLETED, None
    try:
        _begin(context, planned, draft.values["attempt"])
        _attempt_with_retry(context, open_work, planned, draft, started)
    except (CancelledError, KeyboardInterrupt) as error:
        status, reason = Status.CANCELLED, str(error) or "stopped at once by the user"
    except Exception as error:
        status, reason = failure(error)
        draft.values["environment_failed"] = status is Status.FAILED and is_environment_problem(error)
    if draft.record is not None and reason is not None and status is not Status.CANCELLED:
        context.view.message(f"{planned.run_id}: completed, but then {without_secrets(reason)}")
    record = draft.finish(status, reason) if draft.record is None else draft.record
    context.store.write(record)
    if record.status is Status.COMPLETED:
        remove_checkpoints(context.store.checkpoints_dir(planned.run_id))
    context.trackers.log_samples(record.samples)
    context.trackers.finish(record)
    return record


def _begin(context: RunContext, planned: PlannedRun, attempt: int) -> None:
    """Clear away what a killed process left half-written, and tell the trackers. Needs the run's lease."""
    folder = context.store.run_dir(planned.run_id)
    for leftover in [*folder.glob(".writing-*"), *folder.glob(".replaced-*"), *folder.glob("*/.writing-*")]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    context.trackers.start(
        TrackedRun(
            run_id=planned.run_id,
            attempt=attempt,
            experiment=context.experiment,
            spec=planned.spec,
            folder=folder,
        )
    )


def _attempt_with_retry(
    context: RunContext, open_work: Callable[[], GroupWork], planned: PlannedRun, draft: Draft, started: float
) -> None:
    """Out of memory once: the same mathematics at half the micro-batch, and the record says so."""
    training, work = planned.spec.training, open_work()
    micro_batch_size = training.micro_batch_size or context.device.micro_batch(
        training.batch_size, training.context_length
    )
    micro_batch_size = min(micro_batch_size, training.batch_size)
    try:
        _attempt(context, work, planned, draft, micro_batch_size, started)
    except Exception as error:
        if draft.record is not None or not is_out_of_memory(error):
            raise
        if micro_batch_size == 1:
            raise OutOfMemoryRunError("memory ran out at a micro-batch of one row") from None
    else:
        return
    halved = micro_batch_size // 2
    draft.notes.append(
        f"memory ran out at a micro-batch of {micro_batch_size}; done again at {halved} with accumulation"
    )
    context.view.message(f"{planned.run_id}: memory ran out; trying once more at half the micro-batch ({halved})")
    work.shared.base.release_memory()
    try:
        _attempt(context, work, planned, draft, halved, started)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryRunError(f"memory ran out at micro-batches of {micro_batch_size} and {halved}") from None


def _attempt(
    context: RunContext,
    work: GroupWork,
    planned: PlannedRun,
    draft: Draft,
    micro_batch_size: int,
    started: float,
) -> None:
    spec = planned.spec
    draft.describe(work, planned, micro_batch_size)
    base_scores = {split: work.base_scores(spec.dataset, split, spec) for split in ("validation", "test")}
    for name, scores in base_scores.items():
        if not math.isfinite(scores.nll.sum()):
            raise ModelError(
                f"{spec.model}: its own loss on {spec.dataset} ({name}) is not finite in {spec.training.precision}, "
                "before any training; its weights are damaged, or need another precision"
            )
    draft.values.update(base_validation=base_scores["validation"].total(), base_test=base_scores["test"].total())
    measurements = Measurements(work, planned, planned.measures, context.view)
    measurements.measure_base()
    adapter = attach(work.shared.base, spec.adapter, seed=spec.seed)
    try:
        _require_as_planned(work, planned, draft, adapter)
        draft.describe_adapter(work, spec.adapter.alpha_value, adapter)
        validation = _train_and_measure(context, work, planned, draft, adapter, micro_batch_size, started)
        with adapter.as_saved():
            _score_finished(context, work, planned, draft, validation, base_scores)
            draft.save(adapter, BaseReference.of(work.shared.location))
            draft.record = draft.finish(Status.COMPLETED, None)
            context.store.write(draft.record)  # a kill while more is measured takes nothing from the run
            draft.record = measurements.add_to(draft.record, context.store, context.environment)
    finally:
        adapter.detach()


def _require_as_planned(work: GroupWork, planned: PlannedRun, draft: Draft, adapter: Adapter) -> None:
    """Raise ModelError where the adapter is not on the planned modules.

    What was not here yet was planned from the catalogue. Where the hub's files are of another shape, what they hold
    counts, and the record says so.
    """
    targets, trainable, settings = planned.target_modules, planned.trainable_parameters, planned.spec.adapter
    if work.shared.location.info.source == "hub":
        shape = read_model_shape(work.shared.location.folder)
        method = method_of(settings)
        targets = tuple(method.resolve_targets(shape, settings))
        trainable = method.count_trainable(shape, settings, targets)
        if trainable != planned.trainable_parameters or {*targets} != {*planned.target_modules}:
            draft.notes.append(
                f"the hub's files are not what the catalogue says of {planned.spec.model}: {trainable:,} trainable "
                f"parameters in {len(targets)} modules, planned {planned.trainable_parameters:,} in "
                f"{len(planned.target_modules)}"
            )
    adapter.require_as_planned(targets, trainable)


def _train_and_measure(
    context: RunContext,
    work: GroupWork,
    planned: PlannedRun,
    draft: Draft,
    adapter: Adapter,
    micro_batch_size: int,
    started: float,
) -> DocumentScores:
    """Train to the end; returns the scores of the last validation, which is after the last step."""
    spec = planned.spec
    training_text, _ = work.training_text(spec)
    latest: list[DocumentScores] = []
    hooks = _training_hooks(context, work, planned, draft, adapter, latest)
    setup_seconds = time.perf_counter() - started
    reset_peak_memory(work.shared.base.device)
    context.view.phase("training")
    position = train(
        work.shared.base,
        adapter,
        training_text,
        spec.training,
        seed=spec.seed,
        micro_batch_size=micro_batch_size,
        evaluation_times=spec.evaluation.times,
        checkpoint_folder=context.store.checkpoints_dir(planned.run_id),
        checkpoint_key=f"{planned.run_id}:{context.environment.code_sha256}",
        checkpoint_seconds=context.checkpoint_seconds,
        num_recorded_steps=context.trackers.metrics.last_step,
        hooks=hooks,
    )
    if context.should_stop():
        raise CancelledError(f"stopped after the last step of {draft.values['budget'].steps}, before test was scored")
    speed, note = tokens_per_second(position)
    evaluations = tuple(Evaluation(**evaluation) for evaluation in position.evaluations)
    draft.values.update(
        num_resumed=position.num_resumed,
        evaluations=evaluations,
        last_training_loss=position.smoothed_loss,
        best_step=min(evaluations, key=lambda item: item.validation.bits_per_byte).step,
        speed=Speed(
            tokens_per_second=speed,
            train_seconds=position.train_seconds,
            median_step_seconds=statistics.median(position.step_seconds),
            evaluation_seconds=position.evaluation_seconds,
            evaluation_tokens_per_second=position.evaluation_tokens / position.evaluation_seconds,
            setup_seconds=setup_seconds,
            total_seconds=time.perf_counter() - started,
            peak_memory_bytes=peak_memory(work.shared.base.device),
            note=note,
        ),
    )
    if latest:
        return latest[0]
    with adapter.as_saved():
        return work.score(spec.dataset, "validation", spec)


def _training_hooks(
    context: RunContext,
    work: GroupWork,
    planned: PlannedRun,
    draft: Draft,
    adapter: Adapter,
    latest: list[DocumentScores],
) -> Hooks:
    """What the training loop tells trackers, view and draft; `latest` holds the last validation's scores."""
    spec, steps = planned.spec, draft.values["budget"].steps
    last_step = 0

    def evaluate() -> tuple[dict[str, Any], int]:
        context.view.phase("validation")
        with adapter.as_saved():
            latest[:] = [work.score(spec.dataset, "validation", spec)]
        context.view.phase("training")
        check_finite(latest[0].nll.sum(), last_step, "the validation loss")
        scores = latest[0].total()
        return scores.model_dump(), scores.num_tokens

    def on_step(values: Mapping[str, Any]) -> None:
        nonlocal last_step
        last_step = values["step"]
        context.trackers.log_step(values)
        context.view.step(values["step"], steps, values["smoothed_loss"], values["tokens_per_second"])

    def on_evaluation(evaluation: Mapping[str, Any]) -> None:
        scores = Scores(**evaluation["validation"])
        values = evaluation_values(evaluation["step"], evaluation["train_tokens_seen"], scores)
        context.trackers.log_evaluation(values)

    def on_start(position: Position, problems: list[str]) -> None:
        draft.notes.extend(problems)
        for problem in problems:
            context.view.message(problem)
        context.trackers.resume_at(position.steps_done)
        for evaluation in position.evaluations:  # is there already, unless a kill came between it and its step
            on_evaluation(evaluation)
        if position.steps_done:
            context.view.message(f"{planned.run_id}: going on after step {position.steps_done} of {steps}")

    return Hooks(on_step, evaluate, on_evaluation, on_start, context.trackers.metrics.sync, context.should_stop)


def _score_finished(
    context: RunContext,
    work: GroupWork,
    planned: PlannedRun,
    draft: Draft,
    validation: DocumentScores,
    base_scores: Mapping[str, DocumentScores],
) -> None:
    """The final scorings: validation per document, test for the first and only time."""
    spec = planned.spec
    context.view.phase("test")
    steps = draft.values["budget"].steps
    finished = {"validation": validation, "test": work.score(spec.dataset, "test", spec)}
    for split, scores in finished.items():
        check_finite(scores.nll.sum(), steps, f"the {split} loss")
        draft.keep(split, scores.table(base_scores[split]))
        draft.values[split] = scores.total()
    draft.values["num_test_scorings"] += 1
