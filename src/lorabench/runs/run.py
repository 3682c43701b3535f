"""One run, stage by stage, from its task to its record, whatever becomes of it."""

from __future__ import annotations

import shutil

from lorabench.core.errors import CancelledError, OutOfMemoryRunError, is_environment_problem
from lorabench.core.formatting import listed
from lorabench.core.out_of_memory import is_out_of_memory
from lorabench.core.redaction import without_secrets
from lorabench.records.schema import Rung, RunRecord, Status
from lorabench.runs.context import RunContext
from lorabench.runs.draft import Draft
from lorabench.runs.failures import failure
from lorabench.runs.group import GroupWork
from lorabench.runs.layout import Layouts
from lorabench.runs.loaded import LoadedBase
from lorabench.runs.measuring import Measurements
from lorabench.runs.preparing import prepare
from lorabench.runs.rungs import as_it_paused, keep_to_go_on, known_rungs
from lorabench.runs.stages import (
    Trained,
    attached,
    describe_adapter,
    save_adapter,
    score_adapter,
    score_base,
    train_adapter,
)
from lorabench.runs.task import RunTask, TaskOutcome, TaskState
from lorabench.trackers.base import TrackedRun
from lorabench.training.checkpoints import remove_checkpoints


def execute_run(context: RunContext, loaded: LoadedBase, task: RunTask, previous: RunRecord | None) -> TaskOutcome:
    """Do one run, or go on with it, and write its record; one that pauses has a checkpoint and no record yet.

    Whatever goes wrong becomes the record's status and reason; only a record that cannot be written is raised. Call
    with the run's lease.
    """
    draft = Draft(task, context.environment, previous)
    status, reason, environment_failed = Status.COMPLETED, None, False
    try:
        _begin(context, draft)
        paused = _until_it_fits(context, loaded, draft)
        if paused is not None:
            return _pause(context, task, paused, draft.rungs)
    except (CancelledError, KeyboardInterrupt) as error:
        status, reason = Status.CANCELLED, str(error) or "stopped at once by the user"
    except Exception as error:
        status, reason = failure(error, draft.stage)
        environment_failed = status is Status.FAILED and is_environment_problem(error)
    if draft.record is not None and reason is not None and status is not Status.CANCELLED:
        context.view.message(f"{task.run_id}: completed, but then {without_secrets(reason)}")
    record = draft.record or draft.finish(status, reason, environment_failed=environment_failed)
    context.store.write(record)
    if record.status is Status.COMPLETED:
        remove_checkpoints(context.store.checkpoints_dir(task.run_id))
    elif record.status is Status.STOPPED_EARLY:
        keep_to_go_on(context.store.checkpoints_dir(task.run_id))
    context.trackers.log_samples(record.samples)
    context.trackers.finish(record)
    return TaskOutcome(run_id=task.run_id, state=TaskState.DONE, record=record)


def _pause(context: RunContext, task: RunTask, trained: Trained, rungs: tuple[Rung, ...]) -> TaskOutcome:
    context.trackers.finish(None, "paused")
    context.view.message(f"{task.run_id}: paused after step {trained.position.steps_done} of {trained.num_steps}")
    return TaskOutcome(
        run_id=task.run_id,
        state=TaskState.PAUSED,
        steps_done=trained.position.steps_done,
        num_steps=trained.num_steps,
        evaluations=trained.evaluations,
        rungs=rungs,
    )


def _begin(context: RunContext, draft: Draft) -> None:
    """Clear away what a killed process left half-written, and tell the trackers."""
    task = draft.task
    folder = context.store.run_dir(task.run_id)
    for leftover in [*folder.glob(".writing-*"), *folder.glob(".replaced-*"), *folder.glob("*/.writing-*")]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    context.trackers.start(
        TrackedRun(
            run_id=task.run_id,
            attempt=draft.attempt,
            experiment=task.experiment,
            spec=task.spec,
            folder=folder,
        )
    )


def _until_it_fits(context: RunContext, loaded: LoadedBase, draft: Draft) -> Trained | None:
    """Where memory runs out in training: the same mathematics at half the micro-batch, down to one row, and on that
    with gradient checkpointing; the record says so. Raises OutOfMemoryRunError where even that does not fit.
    """
    task = draft.task
    work = loaded.open(task)
    layouts = Layouts(task, context, work, draft.notes.append)
    while True:
        try:
            return _go_through_stages(context, work, draft, layouts)
        except OutOfMemoryRunError:
            raise
        except Exception as error:
            if draft.stage != "train" or not is_out_of_memory(error):
                raise
        if not layouts.shrink():
            tried = listed([str(one) for one in layouts.tried], most=len(layouts.tried))
            raise OutOfMemoryRunError(f"memory ran out at a micro-batch of {tried}; lorabench plan says what fits")
        context.view.message(f"{task.run_id}: memory ran out; trying again at a micro-batch of {layouts.current}")


def _go_through_stages(context: RunContext, work: GroupWork, draft: Draft, layouts: Layouts) -> Trained | None:
    """Every stage in order; returns where the run stands if it is to pause there."""
    task, note = draft.task, draft.notes.append
    folder = context.store.run_dir(task.run_id)
    draft.stage = "prepare"
    draft.prepared = prepare(task, work, layouts.current, note)
    context.ranks.begin(layouts.current)
    draft.stage = "base scores"
    draft.base = score_base(task, work)
    measurements = Measurements(work, task, task.measures, context.view)
    if task.rung_share is None:
        measurements.measure_base()
    draft.rungs = known_rungs(context.store, task.run_id, context.environment.code_sha256, draft.previous)
    draft.stage = "attach"
    paused = as_it_paused(task, context, work, draft.prepared.course)
    with attached(task, work, note, paused) as held:
        adapter = held.adapter
        draft.adapter = describe_adapter(task, work, adapter)
        layouts.begin()
        draft.stage = "train"
        trained = train_adapter(task, context, work, draft.prepared, draft.base, held, note, draft.started)
        layouts.remember()
        if trained.rung is not None:
            draft.rungs = (*(rung for rung in draft.rungs if rung.step != trained.rung.step), trained.rung)
        if trained.pauses:
            if work.keeper is not None:
                work.keeper.put(task.run_id, held)
            return trained
        draft.trained = trained
        draft.stage = "score"
        with adapter.as_saved():
            draft.scored = score_adapter(task, context, work, trained, draft.base, draft.rungs, folder)
            draft.stage = "save"
            draft.saved = save_adapter(adapter, work, draft.scored, folder)
            status = Status.COMPLETED if task.stop_reason is None else Status.STOPPED_EARLY
            draft.notes += work.shared.room.notes
            draft.record = draft.finish(status, task.stop_reason)
            context.store.write(draft.record)  # a kill while more is measured takes nothing from the run
            if task.rung_share is None:
                draft.record = measurements.add_to(draft.record, context.store, context.environment)
    return None
