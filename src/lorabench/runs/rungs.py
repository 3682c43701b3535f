"""Rungs of a search: a run as though it ended there, scored; the run itself stays where it goes on from.

A rung begins with the steps that it shares with the whole run, and ends with a cool-down of its own. What it left lies
in `checkpoints/rung-<step>/` until the run has a record, and in the record's `rungs` from then on.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from lorabench.core.storage import read_regular, sha256_file, write_atomically
from lorabench.records.schema import Rung, RunRecord
from lorabench.records.store import FINISHED, RecordStore
from lorabench.runs.context import RunContext
from lorabench.runs.group import GroupWork, read_table, write_table
from lorabench.runs.keeping import Held, adapts_beside
from lorabench.runs.task import RunTask, TaskOutcome, TaskState
from lorabench.runs.training import TrainingReport
from lorabench.scoring.documents import DocumentScores
from lorabench.training.checkpoints import (
    Checkpoints,
    Position,
    State,
    copy_checkpoint,
    latest_step,
    manifest_of,
    read_latest,
    remove_states,
)
from lorabench.training.loop import Course, TrainingText, train

_FACTS = "rung.json"


def checkpoints_of(task: RunTask, context: RunContext) -> Checkpoints:
    """Where the run's checkpoints lie, and which are its own."""
    return Checkpoints(
        folder=context.store.checkpoints_dir(task.run_id),
        key=f"{task.run_id}:{context.environment.code_sha256}",
        seconds=task.options.checkpoint_seconds,
        num_recorded_steps=context.trackers.metrics.last_step,
    )


def known_rungs(store: RecordStore, run_id: str, code_sha256: str, record: RunRecord | None) -> tuple[Rung, ...]:
    """The rungs that a run has reached and whose results are whole, by step: of its record, and since."""
    folder = store.run_dir(run_id)
    found = {} if record is None else {rung.step: rung for rung in record.rungs}
    for path in sorted(store.checkpoints_dir(run_id).glob(f"rung-*/{_FACTS}")):
        rung = _read_facts(path, f"{run_id}:{code_sha256}")
        if rung is not None:
            found[rung.step] = rung
    return tuple(found[step] for step in sorted(found) if _is_whole(folder, found[step]))


def _read_facts(path: Path, key: str) -> Rung | None:
    try:
        values = json.loads(read_regular(path))
        return Rung.model_validate(values["rung"]) if values["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def _is_whole(folder: Path, rung: Rung) -> bool:
    try:
        return sha256_file(folder / rung.documents) == rung.documents_sha256
    except OSError:
        return False


def outcome_at_rung(context: RunContext, task: RunTask, record: RunRecord | None) -> TaskOutcome | None:
    """That of a task whose rung was reached before, by whichever process; None where it is still to be done."""
    rungs = known_rungs(context.store, task.run_id, context.environment.code_sha256, record)
    if task.rung_share not in [rung.share for rung in rungs]:
        return None
    if record is not None and record.status in FINISHED:
        return TaskOutcome(run_id=task.run_id, state=TaskState.UNNEEDED)
    return TaskOutcome(
        run_id=task.run_id,
        state=TaskState.PAUSED,
        steps_done=rungs[-1].step,
        num_steps=task.planned_steps,
        rungs=rungs,
    )


def as_it_paused(task: RunTask, context: RunContext, work: GroupWork, course: Course) -> Held | State | None:
    """What the task goes on from: the latest checkpoint of the run, in memory or on disk, or of a rung it has begun.

    None: it begins with a new adapter.
    """
    trunk = checkpoints_of(task, context)
    held = None if work.keeper is None else work.keeper.take(task.run_id, manifest_of(trunk.folder))
    step = latest_step(trunk.folder)
    if task.rung_share is not None:
        rung = course.rung(task.rung_share)
        if latest_step(_folder(trunk, rung)) is not None:
            state = read_latest(_folder(trunk, rung), trunk.key) if adapts_beside(task) else None
            return replace(held, state=state) if held and state else state
        if step is not None and step > rung.num_shared_steps:
            return None
    if step is None or step > trunk.num_recorded_steps:
        return None
    return held or (read_latest(trunk.folder, trunk.key) if adapts_beside(task) else None)


def _folder(trunk: Checkpoints, rung: Course) -> Path:
    """Where the checkpoints of a rung lie."""
    return trunk.folder / f"rung-{rung.last_step:08d}"


@dataclass(frozen=True)
class Reached:
    """A run at a rung."""

    position: Position
    rung: Rung
    validation: DocumentScores


def reach_rung(
    task: RunTask,
    context: RunContext,
    work: GroupWork,
    text: TrainingText,
    course: Course,
    held: Held,
    report: TrainingReport,
    base_validation: DocumentScores,
) -> Reached:
    """Train the adapter to the task's rung, score validation and keep both; what was done before is taken up."""
    assert task.rung_share is not None
    whole, course = course, course.rung(task.rung_share)
    trunk, shared = checkpoints_of(task, context), course.num_shared_steps
    folder = _folder(trunk, course)
    if latest_step(folder) is None and (latest_step(trunk.folder) or 0) <= shared:
        own = held.trunk(trunk)
        train(work.shared.base, held.adapter, text, whole, own, report.hooks(), shared, context.ranks)
        if shared:
            copy_checkpoint(trunk.folder, shared, folder)
    own = held.branch(replace(trunk, folder=folder, num_recorded_steps=sys.maxsize))
    report.validation = None
    position = train(work.shared.base, held.adapter, text, course, own, report.rung_hooks(), None, context.ranks)
    known = _read_facts(folder / _FACTS, own.key)
    run_dir = context.store.run_dir(task.run_id)
    if known is not None and _is_whole(run_dir, known):
        return Reached(position, known, read_table(run_dir / known.documents))
    return _keep(run_dir, folder, own.key, position, course, task.rung_share, report.validated(), base_validation)


def _keep(
    run_dir: Path,
    folder: Path,
    key: str,
    position: Position,
    course: Course,
    share: float,
    validation: DocumentScores,
    base_validation: DocumentScores,
) -> Reached:
    """Write what the rung scored, whole or not at all; the states of earlier rungs are needed no more."""
    documents = f"documents/rung-{course.last_step:08d}.parquet"
    write_table(run_dir / documents, validation.table(base_validation))
    rung = Rung(
        share=share,
        step=course.last_step,
        own_steps=course.last_step - course.num_shared_steps,
        train_tokens_seen=position.train_tokens,
        validation=validation.total(),
        documents=documents,
        documents_sha256=sha256_file(run_dir / documents),
    )
    content = json.dumps({"key": key, "rung": rung.model_dump(mode="json")}).encode("ascii")
    write_atomically(folder / _FACTS, content)
    for earlier in folder.parent.glob("rung-*"):
        if earlier != folder:
            remove_states(earlier, num_kept=0)
    remove_states(folder, num_kept=1)
    return Reached(position, rung, validation)


def keep_to_go_on(folder: Path) -> None:
    """Of the checkpoints of a run that was stopped early the last one of the run itself: a larger search goes on."""
    for rung in folder.glob("rung-*"):
        shutil.rmtree(rung, ignore_errors=True)
    remove_states(folder, num_kept=1)
