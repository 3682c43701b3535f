"""What an experiment asks to be measured of finished adapters, beside their runs' own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lorabench.corpora.planning import DatasetPlan
from lorabench.experiment.generate import AnswersRequest, plan_answers
from lorabench.experiment.schema import EvaluationSettings
from lorabench.experiment.tasks import plan_tasks


@dataclass(frozen=True)
class MeasurementRequest:
    """What is to be measured of one adapter; no part of its run's identity."""

    also_on: Mapping[str, str | None] = field(default_factory=dict)
    """Corpora by name, with their revisions; None where any will do, as only the hub knows today's."""
    samples: int = 0
    """Continuations to be written."""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """Tasks of lm-evaluation-harness by name or path, with their revisions."""
    task_examples: int | None = None
    """At most so many documents of each."""
    answers: AnswersRequest | None = None
    """Completions of the run's own corpus."""

    @classmethod
    def of(
        cls, evaluation: EvaluationSettings, dataset: DatasetPlan, others: Sequence[DatasetPlan]
    ) -> MeasurementRequest:
        """What the experiment asks for. Raises MissingExtraError or DataError for what cannot be done."""
        return cls(
            also_on={other.name: other.revision if other.pinned else None for other in others},
            samples=evaluation.samples,
            tasks=plan_tasks(evaluation.tasks, evaluation.task_examples),
            task_examples=evaluation.task_examples,
            answers=plan_answers(evaluation.generate, dataset),
        )

    def __bool__(self) -> bool:
        return bool(self.also_on) or self.samples > 0 or bool(self.tasks) or self.answers is not None
