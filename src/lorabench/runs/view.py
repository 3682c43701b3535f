"""What runs report to whoever shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from lorabench.analysis.race import Race
from lorabench.records.schema import RunRecord
from lorabench.runs.decision import Decision


class RunView:
    """Is told of an experiment's runs, and shows nothing: views derive from it. It is a `core.progress.View`.

    Every method may be called from any thread and costs microseconds.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def worker(self, name: str) -> RunView:
        """The view of what one of several workers does at the same time, shown beside the others."""
        return self

    def message(self, text: str, /) -> None:
        """One sentence that stays."""

    def phase(self, name: str, total: float | None = None, unit: str = "") -> object:
        """What is done now, and how much of it there is."""
        return None

    def progress(self, description: str, done: float, total: float | None, /) -> None:
        """See Progress: for downloads, builders and scorers."""

    def plan(
        self,
        total_runs: int,
        skipped: int,
        expected_seconds: Mapping[str, float] | None = None,
        failed_before: int = 0,
    ) -> None:
        """`total_runs` runs were asked for; `skipped` of them are not done now: done before, but for `failed_before`.

        `expected_seconds` of those to do now, by run id, make the first estimates of the remaining time better.
        """

    def start_run(self, run_id: str, index: int, steps: int = 0) -> None:
        """The `index`-th run (from 1) of those to do now begins; it will take `steps` steps."""

    def step(self, step: int, total: int, loss: float, tokens_per_second: float) -> None:
        """A training step is done."""

    def decided(self, decision: Decision) -> None:
        """A search has decided at a rung who goes on."""

    def races(self, races: Sequence[Race]) -> None:
        """How the configurations of a search stand at the rungs that are under way."""

    def finish_run(self, record: RunRecord) -> None:
        """A run has its record."""
