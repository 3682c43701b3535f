"""Table and page keep up with the runs without taking more than a share of the time."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorabench.records.store import RecordStore
from lorabench.runs import results
from lorabench.runs.results import Results


class Clock:
    """Stands for `time`: rebuilding the table takes as many milliseconds as there are runs, the page ten times that."""

    def __init__(self) -> None:
        self.now = 0.0
        self.num_runs = 0
        self.tables = self.pages = 0
        self.spent = 0.0

    def monotonic(self) -> float:
        return self.now

    def rebuild_table(self, store: RecordStore, *, wait: bool) -> None:
        self.tables += 1
        self._spend(0.001)

    def build_report(self, store: RecordStore, *, figures: bool, wait: bool, running: str) -> None:
        self.pages += 1
        self._spend(0.01)

    def _spend(self, seconds_per_run: float) -> None:
        self.now += seconds_per_run * self.num_runs
        self.spent += seconds_per_run * self.num_runs


@pytest.mark.parametrize("num_runs", [20, 10_000])
def test_rebuilding_takes_a_share_of_the_time_however_many_runs_there_are(
    num_runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    for name, stand_in in (
        ("time", clock),
        ("rebuild_table", clock.rebuild_table),
        ("build_report", clock.build_report),
    ):
        monkeypatch.setattr(results, name, stand_in)
    kept = Results(RecordStore(tmp_path), lambda sentence: None, "smoke")
    for clock.num_runs in range(1, num_runs + 1):
        clock.now += 2.0
        kept.rebuild()
    assert clock.spent <= 0.11 * clock.now
    assert clock.pages >= 1
    if num_runs == 20:
        assert clock.tables + clock.pages == num_runs
