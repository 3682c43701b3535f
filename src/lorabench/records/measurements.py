"""What can be measured of a finished adapter beside its run's own figures, and what of it a record lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lorabench.records.schema import RunRecord, Status


@dataclass(frozen=True)
class MeasurementRequest:
    """What an experiment asks to be measured of an adapter; no part of its run's identity."""

    also_on: Mapping[str, str | None] = field(default_factory=dict)
    """Corpora by name, with their revisions; None where any will do, as only the hub knows today's."""
    samples: int = 0
    """Continuations to be written."""

    def __bool__(self) -> bool:
        return bool(self.also_on) or self.samples > 0

    def missing_in(self, record: RunRecord) -> MeasurementRequest:
        """What of it the record does not hold: a corpus of another revision counts as missing, more samples do not."""
        there = {drift.dataset: drift.revision for drift in record.drift}
        also_on = {
            name: revision
            for name, revision in self.also_on.items()
            if name not in there or revision not in (None, there[name])
        }
        written = 0 if record.sampling is None else record.sampling.num_asked
        return MeasurementRequest(also_on, self.samples if self.samples > written else 0)


def is_measurable(record: RunRecord) -> bool:
    """Whether there is a finished adapter to measure."""
    return record.status in (Status.COMPLETED, Status.STOPPED_EARLY) and record.validation is not None
