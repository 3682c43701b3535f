"""Does one task: takes the run's lease, sees what is needed, and runs or measures. Also as a process of its own.

`python -m lorabench.runs.worker` reads a task (JSON) from standard input, does it and writes its outcome (JSON) to
standard output: what an executor starts elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lorabench.core.device import choose_device
from lorabench.core.errors import DiskError, LorabenchError
from lorabench.core.machine import prepare_process
from lorabench.records.provenance import command_line, describe_environment
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import DamagedRecordError, RecordStore
from lorabench.runs.context import RunContext
from lorabench.runs.launching import do_on_devices
from lorabench.runs.leases import lease_path, try_lease
from lorabench.runs.loaded import LoadedBase
from lorabench.runs.measuring import measure_finished
from lorabench.runs.needs import Need, need_of
from lorabench.runs.run import execute_run
from lorabench.runs.rungs import outcome_at_rung
from lorabench.runs.stopping import stop_in_good_order
from lorabench.runs.task import RunTask, TaskOutcome, TaskState
from lorabench.runs.view import RunView
from lorabench.trackers.make import make_trackers


def do_task(task: RunTask, context: RunContext, loaded: LoadedBase) -> TaskOutcome:
    """Do or measure the run, unless another process holds its lease or has done it."""
    if task.num_devices > context.ranks.size:
        loaded.free()
        return do_on_devices(task, context)
    with ExitStack() as stack:
        try:
            mine = stack.enter_context(try_lease(lease_path(context.store, task.run_id)))
        except DiskError as problem:
            return TaskOutcome(run_id=task.run_id, state=TaskState.LEFT_ALONE, problem=str(problem))
        if not mine:
            return TaskOutcome(run_id=task.run_id, state=TaskState.HELD)
        return _do(task, context, loaded)


def _do(task: RunTask, context: RunContext, loaded: LoadedBase) -> TaskOutcome:
    """Do what is needed now that the lease is held: another process may have been quicker."""
    store = context.store
    try:
        record = store.read(task.run_id)
    except DamagedRecordError as error:
        context.view.message(f"{error}; it was set aside as {store.set_aside(task.run_id).name}")
        record = None
    if task.rung_share is not None and task.stop_reason is None:
        reached = outcome_at_rung(context, task, record)
        if reached is not None:
            return reached
    if record is not None and record.status is Status.STOPPED_EARLY and task.goes_past_stop:
        record = _taken_up(store, record)
    damaged = [] if record is None else store.damaged_files(record)
    need = need_of(task, record, is_damaged=bool(damaged))
    if need not in (Need.RUN, Need.MEASURE):
        return TaskOutcome(run_id=task.run_id, state=TaskState.UNNEEDED)
    _set_aside(context, task.run_id, damaged)
    if record is not None and need is Need.MEASURE:
        context.show_start(task)
        record = measure_finished(context, loaded, task, record)
        return TaskOutcome(run_id=task.run_id, state=TaskState.MEASURED, record=record)
    context.show_start(task, task.planned_steps)
    return execute_run(context, loaded, task, None if damaged else record)


def _taken_up(store: RecordStore, record: RunRecord) -> RunRecord:
    """The record of a run that goes on past where it was stopped early: a kill from now on finds it as cancelled."""
    reason = f"gone on with; it was {record.status_reason}"
    changes: dict[str, Any] = {"status": Status.CANCELLED, "status_reason": reason, "validation": None, "files": {}}
    record = record.model_copy(update=changes)
    store.write(record)
    return record


def _set_aside(context: RunContext, run_id: str, damaged: Sequence[str]) -> None:
    """Set aside what is damaged, with the record that lists it, and what lies where something else belongs."""
    store, report = context.store, context.view.message
    for name in damaged:
        path = store.run_dir(run_id) / name
        report(f"{path} is {'not as it was written' if path.exists() else 'missing'}; the run will be done again")
    for name in dict.fromkeys("adapter" if name.startswith("adapter/") else name for name in damaged):
        if (store.run_dir(run_id) / name).exists():
            report(f"{run_id}: {name} was set aside as {store.set_aside(run_id, name).name}")
    if damaged:
        store.set_aside(run_id)
    for sentence in store.make_room_inside(run_id):
        report(sentence)


def do_alone(task: RunTask) -> TaskOutcome:
    """Do the task in this process, which does nothing else: with its own trackers, and nothing shown.

    Ctrl-C and SIGTERM stop it in good order.
    """
    prepare_process()
    device = choose_device(task.options.device)
    trackers = make_trackers(
        task.options.trackers or "none", task.options.output_dir, upload_adapters=task.options.upload_adapters
    )
    with trackers, stop_in_good_order(lambda: None) as should_stop:
        context = RunContext(
            store=RecordStore(task.options.output_dir),
            trackers=trackers,
            view=RunView(),
            device=device,
            environment=describe_environment(device, command_line()),
            should_stop=should_stop,
        )
        loaded = LoadedBase(context)
        try:
            return do_task(task, context, loaded)
        finally:
            loaded.free()


def main() -> int:
    """Standard input to standard output; the sentence of an error goes to standard error."""
    try:
        print(do_alone(RunTask.model_validate_json(sys.stdin.read())).model_dump_json())
    except LorabenchError as error:
        print(f"lorabench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
