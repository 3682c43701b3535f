"""What of the measurements that an experiment asks for a record holds."""

from __future__ import annotations

from lorabench.experiment.measurements import MeasurementRequest
from lorabench.records.schema import RunRecord, Status


def missing_in(record: RunRecord, request: MeasurementRequest) -> MeasurementRequest:
    """What of the request the record does not hold: another revision of a corpus is missing, more samples are not."""
    there = {drift.dataset: drift.revision for drift in record.drift}
    also_on = {
        name: revision
        for name, revision in request.also_on.items()
        if name not in there or revision not in (None, there[name])
    }
    written = 0 if record.sampling is None else record.sampling.num_asked
    done = {result.revision for result in record.tasks}
    tasks = {task: revision for task, revision in request.tasks.items() if revision not in done}
    samples = request.samples if request.samples > written else 0
    return MeasurementRequest(also_on, samples, tasks, request.task_examples)


def is_measurable(record: RunRecord) -> bool:
    """Whether there is a finished adapter to measure."""
    return record.status in (Status.COMPLETED, Status.STOPPED_EARLY) and record.validation is not None
