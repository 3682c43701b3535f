"""What runs report to whoever shows them."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from lorabench.core.progress import View
from lorabench.records.schema import RunRecord


class RunView(View, Protocol):
    """Shows an experiment's runs. Every method may be called from any thread and costs microseconds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

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

    def finish_run(self, record: RunRecord) -> None:
        """A run has its record."""


class QuietView:
    """Shows nothing: what runs elsewhere is shown by who started it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def message(self, text: str, /) -> None:
        """Says nothing."""

    def phase(self, name: str, total: float | None = None, unit: str = "") -> None:
        """Says nothing."""

    def progress(self, description: str, done: float, total: float | None, /) -> None:
        """Says nothing."""

    def plan(
        self,
        total_runs: int,
        skipped: int,
        expected_seconds: Mapping[str, float] | None = None,
        failed_before: int = 0,
    ) -> None:
        """Says nothing."""

    def start_run(self, run_id: str, index: int, steps: int = 0) -> None:
        """Says nothing."""

    def step(self, step: int, total: int, loss: float, tokens_per_second: float) -> None:
        """Says nothing."""

    def finish_run(self, record: RunRecord) -> None:
        """Says nothing."""
