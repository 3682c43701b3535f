"""Strategy: every run of the experiment to its end, in the order of the plan."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.experiment.plan import PlannedRun
from lorabench.runs.strategy import Request, Standing


class Matrix:
    """Never pauses a run, and never stops one early."""

    in_any_order = True

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._waiting = {run.run_id: None for run in reversed(runs)}
        """Run ids, the next one last."""

    def tell(self, standing: Standing) -> None:
        """What has ended before is not asked for."""
        self._waiting.pop(standing.run_id, None)

    def ask(self) -> Request | None:
        """The next run, once."""
        return Request(self._waiting.popitem()[0]) if self._waiting else None


STRATEGY = Matrix
