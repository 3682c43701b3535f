"""A strategy that is registered from outside: every run pauses half way, and then goes on."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.experiment.plan import PlannedRun
from lorabench.runs.strategy import Request, Standing


class Halves:
    """The first halves of all runs, then the second ones."""

    told: list[Standing] = []  # noqa: RUF012 - of all of them, for the test

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self.requests = [Request(run.run_id, until_share=0.5) for run in runs]

    def tell(self, standing: Standing) -> None:
        self.told.append(standing)
        self.requests = [request for request in self.requests if request.run_id != standing.run_id]
        if standing.status is None:
            self.requests.append(Request(standing.run_id))

    def ask(self) -> Request | None:
        return self.requests.pop(0) if self.requests else None
