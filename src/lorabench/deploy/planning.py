"""What deploying the recommended runs of an experiment would take, before anything is run. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lorabench.deploy.wanted import make_forms, not_installed
from lorabench.experiment.deploy import DeploySettings
from lorabench.experiment.estimates import estimate_run
from lorabench.experiment.plan import Group, Plan
from lorabench.experiment.scored_text import scored_bytes
from lorabench.experiment.workload import Workload

PROCESS_SECONDS = 8.0
"""Of a fresh process that loads a model: one for each form's scores, and one for each of its rounds."""
MAKE_SECONDS_PER_BILLION = 20.0
"""Of making one form, by parameters of the base."""
TIMED_TOKENS = 1500
"""About as many are read in a round as the tokens that it reads and writes cost."""


@dataclass(frozen=True)
class DeploymentPlan:
    """The forms of one run for each corpus."""

    num_runs: int
    """At most: a corpus for which nothing is recommended has none."""
    forms: tuple[str, ...]
    num_rounds: int
    notes: tuple[str, ...]
    """On what is left out."""
    seconds: float
    """About; where the recommended model is the slowest of the experiment."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {
            "num_runs": self.num_runs,
            "forms": list(self.forms),
            "num_rounds": self.num_rounds,
            "notes": list(self.notes),
            "estimated_seconds": round(self.seconds, 1),
        }


def left_out(settings: DeploySettings) -> list[str]:
    """Sentences on what cannot be measured because it is not installed."""
    return [f"deploy: {sentence}" for sentence in not_installed(settings.forms, settings.device)]


def plan_deployment(settings: DeploySettings, plan: Plan) -> DeploymentPlan:
    """Of what the plan's runs come to. Raises as `make_forms`."""
    forms = make_forms(settings.forms, settings.device)
    slowest: dict[tuple[str, str], float] = {}
    for group in plan.groups:
        corpus = (group.dataset.name, group.dataset.revision)
        slowest[corpus] = max(slowest.get(corpus, 0.0), _seconds(group, plan, len(forms), settings.rounds))
    return DeploymentPlan(
        num_runs=len(slowest),
        forms=tuple(form.name for form in forms),
        num_rounds=settings.rounds,
        notes=tuple(left_out(settings)),
        seconds=sum(slowest.values()),
    )


def _seconds(group: Group, plan: Plan, num_forms: int, num_rounds: int) -> float:
    """Of one run of the group in all forms."""
    training, model = group.runs[0].spec.training, group.model

    def reading(num_tokens: int) -> float:
        work = Workload.evaluation_only(
            num_tokens=num_tokens, context_length=training.context_length, precision=training.precision
        )
        return estimate_run(model.shape, work, plan.device).seconds

    scoring = reading(model.tokens_in(scored_bytes(plan.experiment.evaluation, group.dataset, ())))
    making = MAKE_SECONDS_PER_BILLION * model.shape.num_parameters / 1e9
    one_form = PROCESS_SECONDS + scoring + making + num_rounds * (PROCESS_SECONDS + reading(TIMED_TOKENS))
    return PROCESS_SECONDS + scoring + num_forms * one_form
