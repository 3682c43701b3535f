"""Which configuration measured here is of what a result from elsewhere is of. Nothing is compared or ranked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lorabench.analysis.findings import Candidate, Findings
from lorabench.analysis.statistics import Interval
from lorabench.experiment.reference_results import ReferenceResult
from lorabench.records.schema import RunRecord


@dataclass(frozen=True)
class Beside:
    """A result from elsewhere and what was measured here of the same model, corpus, method and rank."""

    result: ReferenceResult
    candidate: Candidate
    """The lowest on validation of all that match."""
    num_candidates: int
    perplexity: Interval
    """On validation, per token, with the interval of its bits per byte at this text's bytes per token."""


def beside_reference(result: ReferenceResult, findings: Findings, records: Mapping[str, RunRecord]) -> list[Beside]:
    """One for each validation text of its corpus that a match was scored on; `records` by run id."""
    found = []
    for corpus in findings.corpora:
        matching = [item for item in corpus.candidates if _is_of(result, records[item.run_ids[0]])]
        if matching:
            lowest = min(matching, key=lambda item: item.bits_per_byte.estimate)
            found.append(Beside(result, lowest, len(matching), _perplexity(lowest)))
    return found


def _is_of(result: ReferenceResult, record: RunRecord) -> bool:
    spec, called = record.spec, record.references
    is_model = result.model in (spec.model, called.get("model"))
    is_dataset = result.dataset in (spec.dataset, called.get("dataset"))
    is_adapter = result.method == spec.adapter.method and result.rank in (None, spec.adapter.rank)
    return is_model and is_dataset and is_adapter


def _perplexity(candidate: Candidate) -> Interval:
    bits = candidate.bits_per_byte

    def at(value: float | None) -> float | None:
        return None if value is None else float(candidate.perplexity ** (value / bits.estimate))

    return replace(bits, estimate=candidate.perplexity, low=at(bits.low), high=at(bits.high))
