"""What a command leaves behind once its runs have ended: every view rebuilt, and the report with the trackers."""

from __future__ import annotations

import shlex
import time

from lorabench.core.errors import CancelledError
from lorabench.experiment.estimates import remember_start
from lorabench.experiment.plan import Plan
from lorabench.records.store import RecordStore
from lorabench.report.build import ReportPaths, build_report
from lorabench.runs.outcome import Outcome
from lorabench.trackers.base import TrackedReport
from lorabench.trackers.make import TrackerGroup


def reported(outcome: Outcome, plan: Plan, store: RecordStore, trackers: TrackerGroup) -> Outcome:
    """The outcome with every view rebuilt where there is a run; how long this machine takes for it is remembered.

    Where this command ended runs and was not cancelled, the trackers are handed the report.
    """
    if outcome.records:
        started = time.perf_counter()
        report = _final_report(store)
        remember_start(plan.device, "report", time.perf_counter() - started)
        outcome.results_dir, outcome.problems = report.results_dir, report.problems
        name = plan.experiment.name
        if outcome.counts.now and not outcome.cancelled and (files := report.files_of(name)):
            trackers.log_report(TrackedReport(name, files))
    return outcome


def _final_report(store: RecordStore) -> ReportPaths:
    """Rebuild every view, after any other process that is at it."""
    try:
        return build_report(store)
    except KeyboardInterrupt:
        again = shlex.join(["lorabench", "report", str(store.output_dir)])
        raise CancelledError(
            f"stopped before the results were rebuilt; every run is kept, and {again} does it"
        ) from None
