"""What choosing is allowed to see: runs with their validation results, and by type nothing of test.

Whatever ranks, chooses or recommends takes ValidationRuns. They are made here from records, and the figures of test are
left behind; `analysis.test_reading` looks at those once everything is chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lorabench.analysis.statistics import Floats
from lorabench.config import RunSpec
from lorabench.errors import DiskError
from lorabench.record.schema import (
    AdapterFacts,
    Budget,
    DatasetFacts,
    Drift,
    Environment,
    Evaluation,
    ModelFacts,
    RunRecord,
    Scores,
    Speed,
    Status,
)
from lorabench.record.store import RecordStore

WITH_RESULT = frozenset({Status.COMPLETED, Status.STOPPED_EARLY})
_RELATIVE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class DocumentResults:
    """Per-document sums, in the order of the documents' hashes: nll and base_nll in nats, all [D]."""

    fingerprint: str
    """Of the documents' hashes: results with the same one can be paired."""
    num_bytes: Floats
    num_tokens: Floats
    nll: Floats
    base_nll: Floats | None


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
    drift: tuple[Drift, ...]
    speed: Speed | None
    environment: Environment
    started_at: str
    finished_at: str | None
    documents: DocumentResults | None
    """Of validation; None where the files are missing or damaged."""

    @property
    def has_result(self) -> bool:
        """Whether it ended well and was scored."""
        return self.status in WITH_RESULT and self.validation is not None


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
        drift=record.drift,
        speed=record.speed,
        environment=record.environment,
        started_at=record.started_at,
        finished_at=record.finished_at,
        documents=documents,
    )


def read_validation_runs(records: Sequence[RunRecord], store: RecordStore) -> tuple[list[ValidationRun], list[str]]:
    """Every record as a ValidationRun with its per-document results, and what is wrong with those."""
    runs, problems = [], []
    for record in records:
        documents = None
        if record.status in WITH_RESULT and record.validation is not None:
            documents, problem = read_documents(store, record.run_id, "validation", record.validation)
            if problem:
                problems.append(problem)
        runs.append(validation_run(record, documents))
    return runs, problems


def read_documents(
    store: RecordStore, run_id: str, split: str, expected: Scores
) -> tuple[DocumentResults | None, str | None]:
    """Per-document results that add up to the record, or None and the reason in one sentence."""
    try:
        columns = store.document_columns(run_id, split)
        if columns is None:
            return None, f"{run_id}: the per-document results of {split} are missing, so it has no interval there"
        order = np.argsort(np.array(columns["document_hash"], dtype=np.str_))
        hashes = [columns["document_hash"][index] for index in order]
        arrays = {
            name: np.array(columns[name], dtype=np.float64)[order]
            for name in ("num_bytes", "num_tokens", "nll", "base_nll")
            if name in columns
        }
    except (DiskError, KeyError, ValueError, TypeError) as error:
        return None, f"{run_id}: the per-document results of {split} are damaged, so it has no interval there ({error})"
    sums = {name: float(values.sum()) for name, values in arrays.items()}
    is_whole = (
        {"num_bytes", "num_tokens", "nll"} <= set(arrays)
        and len(set(hashes)) == len(hashes) == expected.num_documents
        and bool(np.isfinite(np.concatenate(list(arrays.values()))).all())
        and bool((arrays["num_bytes"] > 0).all())
        and sums["num_bytes"] == expected.num_bytes
        and abs(sums["nll"] - expected.negative_log_likelihood)
        <= _RELATIVE_TOLERANCE * max(1.0, abs(expected.negative_log_likelihood))
    )
    if not is_whole:
        return None, f"{run_id}: the per-document results of {split} do not add up to its record; they are left out"
    fingerprint = hashlib.sha256("\n".join(hashes).encode("utf-8", "surrogatepass")).hexdigest()
    return (
        DocumentResults(fingerprint, arrays["num_bytes"], arrays["num_tokens"], arrays["nll"], arrays.get("base_nll")),
        None,
    )


def drift_reader(records: Sequence[RunRecord], store: RecordStore) -> DriftReader:
    """Reads what adapters scored on corpora they were not trained on, and nothing else of a run."""
    expected = {(record.run_id, drift.dataset): drift.adapted for record in records for drift in record.drift}

    def read(run_id: str, dataset: str) -> DocumentResults | None:
        scores = expected.get((run_id, dataset))
        return None if scores is None else read_documents(store, run_id, f"also_on-{dataset}", scores)[0]

    return read
