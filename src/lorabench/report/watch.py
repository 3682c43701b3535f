"""The page of a folder in which experiments run, kept up to date and served; nothing is written to the folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorabench.analysis.race import FOLDER as RACES_FOLDER
from lorabench.core.errors import DiskError
from lorabench.records.asked import FOLDER as ASKED_FOLDER
from lorabench.records.store import RECORD_NAME, RecordStore
from lorabench.records.under_way import UnderWay, read_under_way
from lorabench.report.build import reports_of
from lorabench.report.page import panel_of, render_page
from lorabench.report.serving import PageServer

LOOK_SECONDS = 1.0
SHARE = 0.05
"""Of the time at most this much goes into looking, and as much into making pages: others compute here."""


def watch(store: RecordStore, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page of the store's folder until the user ends it with Ctrl-C.

    `announce` is given the page's address, and a sentence on whatever keeps a page from being made, once each. Raises
    InputError where there is no such port.
    """
    with PageServer(port) as server:
        watched = Watched(store, server)
        watched.look()
        announce(server.address)
        complaint = ""
        while True:
            time.sleep(watched.pause)
            try:
                watched.look()
                complaint = ""
            except DiskError as problem:
                if str(problem) != complaint:
                    complaint = str(problem)
                    announce(complaint)


class Watched:
    """A folder, as it was when it was last looked at."""

    def __init__(self, store: RecordStore, server: PageServer) -> None:
        self._store, self._server = store, server
        self._made_from: tuple[dict[str, tuple[int, int]], set[str]] | None = None
        """The files that the page was made from, and the runs that were under way."""
        self._num_pages = 0
        self._due_at = 0.0
        self._missing: dict[str, int | None] = {}
        """Runs that have not ended -> about how many steps each takes."""
        self.pause = LOOK_SECONDS
        """Seconds to the next look."""

    def look(self) -> None:
        """Tell how far runs are, and make another page where something else changed. Raises DiskError."""
        started = time.monotonic()
        files, under_way = _files_of(self._store), read_under_way(self._store, self._missing)
        looked = time.monotonic()
        self.pause = max(LOOK_SECONDS, (looked - started) / SHARE)
        if (files, {run.run_id for run in under_way}) != self._made_from and looked >= self._due_at:
            under_way = self._make_page()
            self._made_from = files, {run.run_id for run in under_way}
            ended = time.monotonic()
            self._due_at = ended + (ended - looked) / SHARE
        steps = {run.run_id: run.sentence(self._missing[run.run_id]) for run in under_way}
        self._server.shown.tell("steps", json.dumps(steps))

    def _make_page(self) -> list[UnderWay]:
        """Returns the runs that it shows as under way."""
        reports = reports_of(self._store)
        progress = [one for report in reports for one in report.progress]
        self._missing = {run_id: one.asked.num_steps.get(run_id) for one in progress for run_id in one.missing}
        self._num_pages += 1
        version = f"{os.getpid()}-{self._num_pages}"
        page = render_page([panel_of(report) for report in reports], version)
        self._server.shown.show(page.encode("utf-8", errors="backslashreplace"), version)
        return [run for one in progress for run in one.under_way]


def _files_of(store: RecordStore) -> dict[str, tuple[int, int]]:
    """When each file that a page is made from was written, and how large it is."""
    patterns = (f"runs/*/{RECORD_NAME}", f"{ASKED_FOLDER}/*.json", f"{RACES_FOLDER}/*.json", "deployments/*/*.json")
    paths = [path for pattern in patterns for path in store.output_dir.glob(pattern)]
    return {str(path): stamp for path in paths if (stamp := _stamp(path)) is not None}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found: Any = path.stat()
    except OSError:  # it was replaced just now
        return None
    return found.st_mtime_ns, found.st_size
