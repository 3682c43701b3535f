"""What choosing is allowed to see: runs with their validation results, and by type nothing of test.

Whatever ranks, chooses or recommends takes ValidationRuns. They are made here from records, and the figures of test are
left behind; `analysis.test_reading` looks at those once everything is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorabench.core.errors import DiskError
from lorabench.experiment.schema import RunSpec
from lorabench.experiment.search import SearchSettings
from lorabench.records.documents import DocumentResults
from lorabench.records.schema import (
    AdapterFacts,
    Budget,
    DatasetFacts,
    Drift,
    Environment,
    Evaluation,
    ModelFacts,
    Rung,
    RunRecord,
    Scores,
    Speed,
    Status,
)
from lorabench.records.store import RecordStore

DriftReader = Callable[[str, str], DocumentResults | None]
"""Given a run id and a corpus the run was also scored on, what its documents scored there."""


@dataclass(frozen=True)
class ValidationRun:
    """A run as far as choosing may know it."""

    run_id: str
    status: Status
    status_reason: str | None
    experiment: str
    question: str
    spec: RunSpec
    model: ModelFacts | None
    dataset: DatasetFacts | None
    adapter: AdapterFacts | None
    budget: Budget | None
    base: Scores | None
    """The base on validation."""
    validation: Scores | None
    evaluations: tuple[Evaluation, ...]
    last_training_loss: float | None
    search: SearchSettings | None
    rungs: tuple[Rung, ...]
    drift: tuple[Drift, ...]
    speed: Speed | None
    environment: Environment
    started_at: str
    finished_at: str | None
    documents: DocumentResults | None
    """Of validation; None where the files are missing or damaged."""
    goes_on: bool
    """Whether it was interrupted, and the same command takes it up."""

    @property
    def has_result(self) -> bool:
        """Whether it was trained to its end and scored: what was stopped early is compared with nothing."""
        return self.status is Status.COMPLETED and self.validation is not None

    @property
    def has_failed(self) -> bool:
        """Whether it has no result, though nobody decided so."""
        return not self.has_result and self.status is not Status.STOPPED_EARLY


def validation_run(record: RunRecord, documents: DocumentResults | None = None) -> ValidationRun:
    """The record without what choosing must not see."""
    return ValidationRun(
        run_id=record.run_id,
        status=record.status,
        status_reason=record.status_reason,
        experiment=record.experiment,
        question=record.question,
        spec=record.spec,
        model=record.model,
        dataset=record.dataset,
        adapter=record.adapter,
        budget=record.budget,
        base=record.base_validation,
        validation=record.validation,
        evaluations=record.evaluations,
        last_training_loss=record.last_training_loss,
        search=record.search,
        rungs=record.rungs,
        drift=record.drift,
        speed=record.speed,
        environment=record.environment,
        started_at=record.started_at,
        finished_at=record.finished_at,
        documents=documents,
        goes_on=record.goes_on,
    )


class DocumentReader:
    """Reads per-document results for a report, and remembers in a sentence each what could not be used."""

    def __init__(self, store: RecordStore) -> None:
        self.problems: list[str] = []
        self._store = store

    def read(self, record: RunRecord, split: str, expected: Scores) -> DocumentResults | None:
        """The results of a split, or None where they are missing or are not those that the run wrote."""
        try:
            documents = self._store.documents(record, split, expected)
        except DiskError as error:
            problem = f"{error}; until then it has no interval on {split}"
        else:
            if documents is not None:
                return documents
            problem = f"{record.run_id}: the per-document results of {split} are missing, so it has no interval there"
        if problem not in self.problems:
            self.problems.append(problem)
        return None


def read_validation_runs(records: Sequence[RunRecord], reader: DocumentReader) -> list[ValidationRun]:
    """Every record as a ValidationRun with its per-document results."""
    runs = []
    for record in records:
        documents = None
        if record.status is Status.COMPLETED and record.validation is not None:
            documents = reader.read(record, "validation", record.validation)
        runs.append(validation_run(record, documents))
    return runs


def drift_reader(records: Sequence[RunRecord], reader: DocumentReader) -> DriftReader:
    """Reads what adapters scored on corpora they were not trained on, and nothing else of a run."""
    known = {(record.run_id, drift.dataset): (record, drift) for record in records for drift in record.drift}

    def read(run_id: str, dataset: str) -> DocumentResults | None:
        if (run_id, dataset) not in known:
            return None
        record, drift = known[run_id, dataset]
        return None if drift.split is None else reader.read(record, drift.split, drift.adapted)

    return read
