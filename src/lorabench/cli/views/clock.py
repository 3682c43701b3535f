"""How long it will still take: measured speed times the work that remains, over the workers that do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class _Running:
    """A run under way."""

    started: float
    steps_left: int
    first_step: int = 0
    """That was seen; of a run on another machine not every one is."""
    num_steps: int = 0
    """Since the first one."""
    first_step_at: float = 0.0
    last_step_at: float | None = None

    def step(self, step: int, total: int, now: float) -> None:
        """A step is done."""
        if self.last_step_at is None:
            self.first_step, self.first_step_at = step, now
        self.num_steps = step - self.first_step
        self.last_step_at, self.steps_left = now, total - step

    def rest(self, now: float, tail_seconds: float) -> float | None:
        """Seconds to its end, `tail_seconds` after its last step; None while its speed cannot be seen."""
        if self.num_steps <= 0 or self.last_step_at is None:
            return None
        step_seconds = (self.last_step_at - self.first_step_at) / self.num_steps
        return max(0.0, self.last_step_at + step_seconds * self.steps_left + tail_seconds - now)


@dataclass
class Clock:
    """Estimates the remaining seconds. Every time it is given is `time.monotonic()`."""

    weights: dict[str, float] = field(default_factory=dict)
    """Expected seconds of the runs that are not done, by id; only their proportions matter once one is done."""
    num_waiting: int = 0
    """Runs not yet begun of which nothing is known."""
    num_workers: int = 1
    """How many runs are done at the same time."""
    _running: dict[str, _Running] = field(default_factory=dict)
    _seconds_done: float = 0.0
    _weight_done: float = 0.0
    _tail_seconds: float = 0.0

    def plan(self, num_runs: int, weights: Mapping[str, float] | None = None) -> None:
        """`num_runs` are to be done; `weights` are their expected seconds, where they are known."""
        self.weights = dict(weights or {})
        self.num_waiting = max(0, num_runs - len(self.weights))

    def start_run(self, run_id: str, steps: int, now: float) -> None:
        """A run begins."""
        self._running[run_id] = _Running(now, steps)
        if run_id not in self.weights and self.num_waiting:
            self.num_waiting -= 1

    def step(self, run_id: str, step: int, total: int, now: float) -> None:
        """A step is done; whatever happens between two steps counts as theirs, what came before the first does not."""
        if run_id in self._running:
            self._running[run_id].step(step, total, now)

    def pause_run(self, run_id: str) -> None:
        """Nobody is at the run any more; it is not done."""
        self._running.pop(run_id, None)

    def finish_run(self, run_id: str, now: float) -> None:
        """The run is done."""
        weight = self.weights.pop(run_id, self._usual_weight())
        run = self._running.pop(run_id, None)
        if run is None:
            return
        self._seconds_done += now - run.started
        self._weight_done += weight
        if run.last_step_at is not None:
            self._tail_seconds = now - run.last_step_at

    def remaining_seconds(self, now: float) -> float | None:
        """What is left, the runs under way included; None while there is nothing to go by."""
        rests = {run_id: run.rest(now, self._tail_seconds) for run_id, run in self._running.items()}
        waiting = sum(weight for run_id, weight in self.weights.items() if run_id not in self._running)
        waiting += self.num_waiting * self._usual_weight()
        if waiting == 0.0 and not rests:
            return 0.0
        pace = self._pace(now, rests)
        if pace is None and (waiting > 0.0 or None in rests.values()):
            return None
        pace = pace or 0.0
        seconds = [self._expected_rest(run_id, now, pace) if rest is None else rest for run_id, rest in rests.items()]
        return max([*seconds, (pace * waiting + sum(seconds)) / self.num_workers])

    def _expected_rest(self, run_id: str, now: float, pace: float) -> float:
        return max(0.0, pace * self._weight(run_id) - (now - self._running[run_id].started))

    def _weight(self, run_id: str) -> float:
        return self.weights.get(run_id, self._usual_weight())

    def _usual_weight(self) -> float:
        return sum(self.weights.values()) / len(self.weights) if self.weights else 1.0

    def _pace(self, now: float, rests: Mapping[str, float | None]) -> float | None:
        """Seconds per unit of weight: of the finished runs, else of those under way whose end can be seen."""
        if self._weight_done > 0.0:
            return self._seconds_done / self._weight_done
        seen = {run_id: rest for run_id, rest in rests.items() if rest is not None}
        if not seen:
            return None
        seconds = sum(now - self._running[run_id].started + rest for run_id, rest in seen.items())
        return seconds / sum(map(self._weight, seen))
