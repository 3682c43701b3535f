"""What a strategy asks for, in the order in which workers get it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lorabench.runs.order import Job, Waiting
from lorabench.runs.strategy import Request, Strategy
from lorabench.runs.task import RunTask


class Requests:
    """Asks a strategy, and hands out what it gives: in its own order, or where that is free in the best one.

    `seconds`, by run id, are what the runs are expected to take.
    """

    def __init__(
        self, strategy: Strategy, tasks: Mapping[str, RunTask], seconds: Mapping[str, float], num_workers: int
    ) -> None:
        self._strategy = strategy
        self._tasks = tasks
        self._seconds = seconds
        self._waiting = Waiting(num_workers)
        self._requests: dict[str, Request] = {}
        """Of the runs that wait."""
        self._reorders = num_workers > 1 and getattr(strategy, "in_any_order", False)
        self._again: list[Request] = []

    def put_back(self, requests: Collection[Request]) -> None:
        """Hand these out again, before anything else."""
        self._again += requests

    def next(self, last: str | None, under_way: Collection[str]) -> Request | None:
        """What a worker does next that did the run `last`, while the others do those `under_way`; None: nothing yet."""
        if self._again:
            return self._again.pop(0)
        if not self._reorders:
            return self._strategy.ask()
        while request := self._strategy.ask():
            self._requests[request.run_id] = request
            self._waiting.add(self._job(request.run_id))
        if not self._waiting:
            return None
        held = None if last is None else self._job(last)
        return self._requests.pop(self._waiting.take(held, [self._job(run_id) for run_id in under_way]).run_id)

    def _job(self, run_id: str) -> Job:
        return Job.of(run_id, self._tasks[run_id].spec, self._seconds.get(run_id, 0.0))
