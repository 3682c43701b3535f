"""What an experiment asks to be measured of finished adapters, beside their runs' own figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class MeasurementRequest:
    """What is to be measured of one adapter; no part of its run's identity."""

    also_on: Mapping[str, str | None] = field(default_factory=dict)
    """Corpora by name, with their revisions; None where any will do, as only the hub knows today's."""
    samples: int = 0
    """Continuations to be written."""

    def __bool__(self) -> bool:
        return bool(self.also_on) or self.samples > 0
