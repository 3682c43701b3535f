"""What is still to be done of a run, as its record and the files beside it say."""

from __future__ import annotations

from enum import Enum, auto

from lorabench.records.measurements import is_measurable, missing_in
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import DamagedRecordError, RecordStore
from lorabench.runs.remaining import RETRIED
from lorabench.runs.task import RunTask


class Need(Enum):
    """What is to be done of a run."""

    RUN = auto()
    MEASURE = auto()
    """It is finished and whole, but something is to be measured of its adapter."""
    NOTHING = auto()
    LEFT_FAILED = auto()
    """It did not complete, and is not to be tried again."""


def find_need(store: RecordStore, task: RunTask) -> Need:
    """Read the run's record and hash what lies beside it. Changes nothing: another process may be at it.

    Raises RecordProblem for a record that is not for this lorabench to read.
    """
    try:
        record = store.read(task.run_id)
    except DamagedRecordError:
        return Need.RUN
    return need_of(task, record, is_damaged=record is not None and bool(store.damaged_files(record)))


def need_of(task: RunTask, record: RunRecord | None, *, is_damaged: bool) -> Need:
    """What is to be done of a run with this record, beside which files are damaged or not."""
    if record is None or record.goes_on:
        return Need.RUN
    if record.status in RETRIED:
        return Need.RUN if record.attempt <= task.num_attempts_to_repeat else Need.LEFT_FAILED
    goes_on = record.status is Status.STOPPED_EARLY and task.goes_past_stop
    if is_damaged or goes_on:
        return Need.RUN
    return Need.MEASURE if lacks_measurements(task, record) else Need.NOTHING


def lacks_measurements(task: RunTask, record: RunRecord) -> bool:
    """Whether a finished adapter is to be measured."""
    return is_measurable(record) and bool(missing_in(record, task.measures))
