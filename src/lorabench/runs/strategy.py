"""Which runs are done, in which order and how far: the protocol of strategies, each of which is one file in
`strategies/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from lorabench.core.registry import Registry
from lorabench.experiment.plan import PlannedRun
from lorabench.records.schema import Evaluation, Rung, RunRecord, Status
from lorabench.runs.task import TaskOutcome


@dataclass(frozen=True)
class Request:
    """What a strategy wants next."""

    run_id: str
    until_share: float | None = None
    """Pause the run after this share of its steps, counted from its beginning; None: do it to its end.

    A share of `k / evaluation.times` is right after the `k`-th scoring of validation.
    """
    rung_share: float | None = None
    """Pause the run at this share of its steps, scored as though it ended there (`lorabench.runs.rungs`)."""
    stop_reason: str | None = None
    """Stop a run that paused, where it stands, and why: one sentence for its record. None: it goes on."""


@dataclass(frozen=True)
class Standing:
    """How far a run is, and what it has scored on validation so far."""

    run_id: str
    status: Status | None
    """How it ended; None: it has paused."""
    steps_done: int
    num_steps: int
    """Of the whole run; 0 where it ended before that was known."""
    evaluations: tuple[Evaluation, ...]
    rungs: tuple[Rung, ...] = ()
    """That it has reached."""

    @classmethod
    def of_record(cls, record: RunRecord) -> Standing:
        """Of a run that has ended."""
        num_steps = 0 if record.budget is None else record.budget.steps
        done = max((evaluation.step for evaluation in record.evaluations), default=0)
        return cls(record.run_id, record.status, done, num_steps, record.evaluations, record.rungs)

    @classmethod
    def of_pause(cls, outcome: TaskOutcome) -> Standing:
        """Of a run that has paused."""
        steps = outcome.steps_done, outcome.num_steps
        return cls(outcome.run_id, None, *steps, outcome.evaluations, outcome.rungs)


def final_figure(standings: Sequence[Standing]) -> float | None:
    """A configuration's bits per byte at its end, mean over seeds; None without any, or where one did not complete."""
    if not standings or any(standing.status is not Status.COMPLETED for standing in standings):
        return None
    return fmean(standing.evaluations[-1].validation.bits_per_byte for standing in standings)


class Strategy(Protocol):
    """Decides what is done next. It sees validation only: test is not among what it is told.

    One with an attribute `in_any_order` that is true may be asked for everything at once, and several workers do it in
    the order that takes them least time.
    """

    def tell(self, standing: Standing) -> None:
        """A run has paused or ended. Those that had ended before are told before the first `ask`."""

    def ask(self) -> Request | None:
        """What is to be done next; None: nothing until more is told, and nothing at all where no run is under way."""


StrategyKind = Callable[[Sequence[PlannedRun]], Strategy]
"""How one kind of strategy is made, from all runs of the experiment in the order of its plan; `STRATEGY` in its
file."""

STRATEGIES: Registry[StrategyKind] = Registry("lorabench.runs.strategies", "STRATEGY", "strategy")
