"""How long it will still take: measured speed times the work that remains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Estimates the remaining seconds. Every time it is given is `time.monotonic()`."""

    weights: dict[str, float] = field(default_factory=dict)
    """Expected seconds of the runs that are not done, by id; only their proportions matter once one is done."""
    num_waiting: int = 0
    """Runs not yet begun of which nothing is known."""
    _seconds_done: float = 0.0
    _weight_done: float = 0.0
    _tail_seconds: float | None = None
    _run_id: str | None = None
    _run_started: float = 0.0
    _steps_left: int = 0
    _num_steps: int = 0
    _first_step_at: float = 0.0
    _last_step_at: float | None = None

    def plan(self, num_runs: int, weights: Mapping[str, float] | None = None) -> None:
        """`num_runs` are to be done; `weights` are their expected seconds, where they are known."""
        self.weights = dict(weights or {})
        self.num_waiting = max(0, num_runs - len(self.weights))

    def start_run(self, run_id: str, steps: int, now: float) -> None:
        """A run begins."""
        self._run_id, self._run_started, self._steps_left = run_id, now, steps
        self._num_steps, self._last_step_at = 0, None
        if run_id not in self.weights and self.num_waiting:
            self.num_waiting -= 1

    def step(self, step: int, total: int, now: float) -> None:
        """A step is done; whatever happens between two steps counts as theirs, what came before the first does not."""
        if self._last_step_at is None:
            self._first_step_at = now
        else:
            self._num_steps += 1
        self._last_step_at, self._steps_left = now, total - step

    def finish_run(self, now: float) -> None:
        """The run is done."""
        if self._run_id is None:
            return
        self._seconds_done += now - self._run_started
        self._weight_done += self.weights.pop(self._run_id, self._usual_weight())
        if self._last_step_at is not None:
            self._tail_seconds = now - self._last_step_at
        self._run_id = None

    def remaining_seconds(self, now: float) -> float | None:
        """What is left, the current run included; None while there is nothing to go by."""
        current = self._rest_of_current(now)
        waiting = sum(weight for run_id, weight in self.weights.items() if run_id != self._run_id)
        waiting += self.num_waiting * self._usual_weight()
        if waiting == 0.0 and self._run_id is None:
            return 0.0
        pace = self._pace(now, current)
        if pace is None and waiting > 0.0:
            return None
        if self._run_id is not None and current is None:
            if pace is None:
                return None
            expected = pace * self.weights.get(self._run_id, self._usual_weight())
            current = max(0.0, expected - (now - self._run_started))
        return (pace or 0.0) * waiting + (current or 0.0)

    def _usual_weight(self) -> float:
        return sum(self.weights.values()) / len(self.weights) if self.weights else 1.0

    def _pace(self, now: float, rest_of_current: float | None) -> float | None:
        """Seconds per unit of weight: of the finished runs, else of the current one if its end can be seen."""
        if self._weight_done > 0.0:
            return self._seconds_done / self._weight_done
        if self._run_id is None or rest_of_current is None:
            return None
        whole = now - self._run_started + rest_of_current
        return whole / self.weights.get(self._run_id, self._usual_weight())

    def _rest_of_current(self, now: float) -> float | None:
        if self._run_id is None or self._num_steps == 0 or self._last_step_at is None:
            return None
        step_seconds = (self._last_step_at - self._first_step_at) / self._num_steps
        ends_at = self._last_step_at + step_seconds * self._steps_left + (self._tail_seconds or 0.0)
        return max(0.0, ends_at - now)
