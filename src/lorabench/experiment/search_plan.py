"""What a planned search would cost, rung by rung, on each corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from lorabench.experiment.estimates import estimate_run
from lorabench.experiment.ladder import RungPlan, plan_rungs, search_cost
from lorabench.experiment.plan import Group, Plan, PlannedRun
from lorabench.experiment.steps import step_at
from lorabench.experiment.workload import Workload


@dataclass(frozen=True)
class SearchPlan:
    """The search on one corpus. Costs are in whole runs, and in seconds here."""

    corpus: str
    strategy: str
    num_configurations: int
    num_listed: int
    """Of these in the plan: the others are proposed once there are results."""
    num_seeds: int
    """That they are compared with."""
    rungs: tuple[RungPlan, ...]
    """The end is the last."""
    expected_runs: float
    runs_at_most: float
    expected_seconds: float
    seconds_at_most: float
    first_steps: int
    """That the shortest run has at the first rung."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return asdict(self)


def expected_plan(plan: Plan, searches: Sequence[SearchPlan]) -> Plan:
    """The plan with one run for each configuration that enters a search, which takes what the search is expected to
    spend on it: rungs, ends and further seeds, spread evenly. A plan without searches as it is."""
    first = plan.experiment.seeds[0]
    shares = {search.corpus: search.expected_runs / search.num_listed for search in searches}
    groups = [
        replace(group, runs=tuple(_shortened(run, share) for run in group.runs if run.spec.seed == first))
        for group in plan.groups
        if (share := shares.get(group.dataset.name)) is not None
    ]
    return replace(plan, groups=tuple(groups)) if searches else plan


def _shortened(run: PlannedRun, share: float) -> PlannedRun:
    return replace(
        run,
        estimated_seconds=share * run.estimated_seconds,
        estimated_gpu_seconds=share * run.estimated_gpu_seconds,
    )


def plan_searches(plan: Plan) -> list[SearchPlan]:
    """Of each corpus; none where every run is trained to its end."""
    search = plan.experiment.search
    if search is None or not search.leaves_runs_out:
        return []
    by_corpus: dict[str, list[Group]] = {}
    for group in plan.groups:
        by_corpus.setdefault(group.dataset.name, []).append(group)
    return [_plan_search(plan, corpus, groups) for corpus, groups in by_corpus.items()]


def _plan_search(plan: Plan, corpus: str, groups: Sequence[Group]) -> SearchPlan:
    search, seeds = plan.experiment.search, plan.experiment.seeds
    assert search is not None
    entering = [(group, run) for group in groups for run in group.runs if run.spec.seed == seeds[0]]
    settings = entering[0][1].spec.training
    each, models = search.num_configurations(len(plan.experiment.models)), {run.spec.model for _, run in entering}
    count = len(entering) if each is None or search.strategy != "tpe" else each * len(models)
    rungs = plan_rungs(search, count, settings)
    whole = fmean(run.estimated_seconds for _, run in entering)
    works = [(group.model.shape, _scoring_of(group, run.workload, plan)) for group, run in entering]
    scoring = fmean(estimate_run(shape, work, plan.device).seconds for shape, work in works)
    first = min(step_at(run.steps, share) for _, run in entering for share in (*search.shares, 1.0)[:1])
    expected, most = (search_cost(search, count, settings, len(seeds), at_most=at_most) for at_most in (False, True))
    scored, scored_at_most = (len(seeds) * scoring * sum(counts) for counts in _counts(rungs))
    return SearchPlan(
        corpus=corpus,
        strategy=search.strategy,
        num_configurations=count,
        num_listed=len(entering),
        num_seeds=len(seeds),
        rungs=tuple(rungs),
        expected_runs=expected,
        runs_at_most=most,
        expected_seconds=expected * whole + scored,
        seconds_at_most=most * whole + scored_at_most,
        first_steps=first,
    )


def _counts(rungs: Sequence[RungPlan]) -> tuple[list[int], list[int]]:
    """Configurations scored at the rungs, expected and at most."""
    return [rung.num_configurations for rung in rungs[:-1]], [rung.num_at_most for rung in rungs[:-1]]


def _scoring_of(group: Group, workload: Workload, plan: Plan) -> Workload:
    num_bytes = group.dataset.bytes_within("validation", plan.experiment.evaluation.validation_bytes)
    tokens = group.model.tokens_in(num_bytes)
    return replace(workload, train_tokens=0, evaluation_tokens=tokens, writes_samples=False, answers=(0, 0))
