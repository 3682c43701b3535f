"""What of the measurements that an experiment asks for a record holds."""

from __future__ import annotations

from dataclasses import replace

from lorabench.experiment.generate import AnswersRequest
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
    return MeasurementRequest(also_on, samples, tasks, request.task_examples, _missing_answers(record, request.answers))


def _missing_answers(record: RunRecord, request: AnswersRequest | None) -> AnswersRequest | None:
    """Of the splits without answers of that kind; test is answered by runs alone that have scored it."""
    if request is None:
        return None
    done = {answers.split for answers in record.answers if answers.revision == request.revision}
    splits = tuple(
        split for split in request.splits if split not in done and (split != "test" or record.test is not None)
    )
    return replace(request, splits=splits) if splits else None


def is_measurable(record: RunRecord) -> bool:
    """Whether there is a finished adapter to measure."""
    return record.status is Status.COMPLETED and record.validation is not None
