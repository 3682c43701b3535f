"""Tells the trackers of the head, where the user's keys are, what a run's figures were that was done elsewhere."""

from __future__ import annotations

from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore
from lorabench.runs.task import RunTask
from lorabench.trackers.base import TrackedRun
from lorabench.trackers.make import TrackerGroup


def track_again(trackers: TrackerGroup, store: RecordStore, task: RunTask, record: RunRecord) -> None:
    """Hand over the whole curve of a run that has come back, its samples and how it ended."""
    if not trackers.trackers:
        return
    run = TrackedRun(record.run_id, record.attempt, task.experiment, task.spec, store.run_dir(record.run_id))
    lines = store.metrics(record)
    for tracker in trackers.trackers:
        tracker.start(run)
        for line in lines:
            values = {name: value for name, value in line.items() if name != "kind"}
            (tracker.log_step if line["kind"] == "step" else tracker.log_evaluation)(values)
        tracker.log_samples(record.samples)
        tracker.finish(record, str(record.status))
