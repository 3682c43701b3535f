"""What a search did: who was stopped where, what that saved, and how far its outcome can be trusted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from lorabench.analysis.candidates import describe_all, settings_of_runs
from lorabench.analysis.facts import Racer, SearchFindings
from lorabench.analysis.validation import ValidationRun
from lorabench.experiment.identity import configuration_of
from lorabench.experiment.search import SearchStrategy
from lorabench.records.schema import Status


def searches_of(runs: Sequence[ValidationRun]) -> tuple[SearchFindings, ...]:
    """Of each corpus on which runs were compared at rungs, each strategy with its rungs for itself."""
    members: dict[tuple[str, SearchStrategy, tuple[float, ...]], list[ValidationRun]] = defaultdict(list)
    for run in runs:
        if run.search is not None and run.search.stops_runs:  # one that was extended is still the same search
            members[run.spec.dataset, run.search.strategy, run.search.shares].append(run)
    raced = {key: found for key, found in sorted(members.items()) if any(run.rungs for run in found)}
    searches_on = Counter(corpus for corpus, _, _ in raced)
    return tuple(
        _findings(
            corpus if searches_on[corpus] == 1 else f"{corpus} ({strategy}, {_rungs(shares)})", strategy, shares, found
        )
        for (corpus, strategy, shares), found in raced.items()
    )


def _rungs(shares: Sequence[float]) -> str:
    return "rungs at " + ", ".join(f"{share:.3g}" for share in shares)


def _findings(
    label: str, strategy: SearchStrategy, shares: tuple[float, ...], runs: Sequence[ValidationRun]
) -> SearchFindings:
    labels = describe_all(settings_of_runs(runs))
    racers = [_racer(run, label) for run, label in zip(runs, labels, strict=True)]
    compared = [run for run in runs if run.rungs]
    return SearchFindings(
        corpus=label,
        strategy=strategy,
        shares=shares,
        racers=tuple(sorted(racers, key=lambda racer: (-len(racer.points), racer.points[-1:], racer.run_id))),
        num_tried=len({configuration_of(run.spec) for run in runs}),
        num_finished=len({configuration_of(run.spec) for run in runs if run.status is Status.COMPLETED}),
        whole_runs=sum(map(_trained, runs)),
        whole_runs_without=len(compared),
    )


def _racer(run: ValidationRun, label: str) -> Racer:
    points = [(rung.share, rung.validation.bits_per_byte) for rung in run.rungs]
    if run.status is Status.COMPLETED and run.validation is not None:
        points.append((1.0, run.validation.bits_per_byte))
    return Racer(run.run_id, label, run.spec.seed, run.status, run.status_reason or "", tuple(points))


def _trained(run: ValidationRun) -> float:
    """How much of a whole run was trained for it, the cool-downs of its rungs included."""
    if run.budget is None:
        return 0.0
    own = sum(rung.own_steps for rung in run.rungs)
    if run.status is Status.COMPLETED:
        return 1.0 + own / run.budget.steps
    shared = max((rung.step - rung.own_steps for rung in run.rungs), default=0)
    return (shared + own) / run.budget.steps
