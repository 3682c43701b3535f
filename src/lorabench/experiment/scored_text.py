"""How much text a run scores."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.corpora.planning import DatasetPlan
from lorabench.experiment.schema import ScoringSettings


def scored_bytes(
    settings: ScoringSettings, dataset: DatasetPlan, others: Sequence[DatasetPlan], *, along_the_run: bool = False
) -> int:
    """Of validation and test, and of validation of the corpora that are only scored; with what is scored on the way."""
    validation = dataset.bytes_within("validation", settings.validation_bytes)
    return (
        (settings.times if along_the_run else 1) * validation
        + dataset.bytes_within("test", settings.test_bytes)
        + sum(other.bytes_within("validation", settings.validation_bytes) for other in others)
    )
