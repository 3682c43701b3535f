"""Keeps table and page up to date from an experiment's beginning on, without making its runs wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from lorabench.analysis.race import Race, read_races, write_races
from lorabench.core.errors import BusyError, DiskError
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report, rebuild_table

PAGE_SECONDS = 30.0
SHARE = 0.05
"""Of the time at most this much goes into rebuilding the table, and as much into the page, however many runs they show.

So a command that does ten thousand runs does not write a table of up to ten thousand rows ten thousand times.
"""


class Results:
    """The page as the work begins; table and page after runs, where what rebuilding them took has paid for itself."""

    def __init__(self, store: RecordStore, report: Callable[[str], None], experiment: str) -> None:
        """`experiment` is the name of the one that is being done."""
        self._store = store
        self._experiment = experiment
        self._report = report
        self._table_due_at = time.monotonic()
        self._page_due_at = time.monotonic()
        self._races_due_at = time.monotonic()
        self._races = read_races(store.output_dir, experiment)
        """As they were last written."""
        self._complaint = ""
        """Why they could not be rebuilt the last time."""

    def races(self, races: Sequence[Race]) -> None:
        """Keep for the page how a search's rungs stand, before the page is rebuilt."""
        started = time.monotonic()
        if tuple(races) != self._races and started >= self._races_due_at:
            try:
                write_races(self._store.output_dir, self._experiment, races)
            except DiskError as error:
                self._complain(error)
            self._races = tuple(races)
            ended = time.monotonic()
            self._races_due_at = ended + (ended - started) / SHARE

    def rebuild(self) -> None:
        """As the work begins, and after every run; what another process is at just then is left for a later time."""
        started = time.monotonic()
        if started < min(self._table_due_at, self._page_due_at):
            return
        is_page_due = started >= self._page_due_at
        try:
            if is_page_due:
                build_report(self._store, figures=False, wait=False, running=self._experiment)
            else:
                rebuild_table(self._store, wait=False)
        except (BusyError, DiskError) as error:
            self._complain(error)
        ended = time.monotonic()
        pause = (ended - started) / SHARE
        if is_page_due:
            self._page_due_at = ended + max(PAGE_SECONDS, pause)
        else:
            self._table_due_at = ended + pause

    def _complain(self, error: Exception) -> None:
        """Once, whatever is tried again."""
        if str(error) != self._complaint:
            self._report(f"table and page are rebuilt later: {error}")
        self._complaint = str(error)
