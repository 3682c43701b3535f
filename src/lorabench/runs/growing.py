"""A plan that grows while it is done: a strategy proposes configurations, which are planned as the experiment's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from lorabench.experiment.plan import Plan, PlannedRun, plan_runs
from lorabench.experiment.schema import TrainingSettings
from lorabench.methods.settings import AdapterSettings


@dataclass(frozen=True)
class Proposal:
    """A configuration to be tried, with every seed of the experiment."""

    model: str
    """By its name."""
    dataset: str
    adapter: AdapterSettings
    training: TrainingSettings


@runtime_checkable
class Growing(Protocol):
    """A strategy that proposes configurations from what it has been told."""

    @property
    def num_to_come(self) -> int:
        """Runs that it has not proposed yet, at most."""

    def proposals(self) -> Sequence[Proposal]:
        """What is to be tried beside what has been added; empty until more has been told."""

    def add(self, proposal: Proposal, runs: Sequence[PlannedRun]) -> None:
        """The runs of a proposal, one for each seed; those that have ended are told right after."""


def with_proposal(plan: Plan, proposal: Proposal) -> tuple[Plan, tuple[PlannedRun, ...]]:
    """The plan with the runs of a proposal, each once, and these runs. Raises InputError for what cannot be run."""
    groups, planned = [], tuple[PlannedRun, ...]()
    for group in plan.groups:
        if (group.model.name, group.dataset.name) == (proposal.model, proposal.dataset):
            place = group.model, group.dataset, group.also_on
            found = plan_runs(plan.experiment, plan.device, place, [(proposal.adapter, proposal.training)])
            known = {run.run_id: run for run in group.runs}
            planned = tuple(known.get(run.run_id, run) for run in found)
            group = replace(group, runs=tuple((known | {run.run_id: run for run in planned}).values()))
        groups.append(group)
    return replace(plan, groups=tuple(groups)), planned
