"""Keeps table and page up to date while an experiment runs, without making its runs wait."""

from __future__ import annotations

import time
from collections.abc import Callable

from lorabench.core.errors import BusyError, DiskError
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report, rebuild_table

PAGE_SECONDS = 30.0
PAGE_SHARE = 0.05
"""Of the time at most this much goes into rebuilding the page, however many runs it shows."""


class Results:
    """The table after every run; the page with it where the last one is old enough."""

    def __init__(self, store: RecordStore, report: Callable[[str], None]) -> None:
        self._store = store
        self._report = report
        self._page_due_at = time.monotonic() + PAGE_SECONDS
        self._complaint = ""
        """Why they could not be rebuilt the last time."""

    def rebuild(self) -> None:
        """What cannot be rebuilt now, another process being at it, is rebuilt after a later run."""
        started = time.monotonic()
        try:
            if started < self._page_due_at:
                rebuild_table(self._store, wait=False)
                return
            build_report(self._store, figures=False, wait=False)
        except (BusyError, DiskError) as error:
            if str(error) != self._complaint:
                self._report(f"table and page are rebuilt later: {error}")
            self._complaint = str(error)
        ended = time.monotonic()
        self._page_due_at = ended + max(PAGE_SECONDS, (ended - started) / PAGE_SHARE)
