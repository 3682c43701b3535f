"""From names on the command line to trackers: checked before anything runs, harmless while it runs."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lorabench.core.errors import ConfigError, MissingExtraError, near_matches
from lorabench.core.registry import Registry
from lorabench.records.schema import RunRecord, Sample
from lorabench.trackers.background import BackgroundTracker
from lorabench.trackers.base import TrackedReport, TrackedRun, TrackerKind, TrackerOptions, Values
from lorabench.trackers.jsonl import MetricsFile

TRACKERS: Registry[TrackerKind] = Registry("lorabench.trackers.kinds", "TRACKER", "tracker")


def parse_tracker_names(text: str | Sequence[str]) -> tuple[str, ...]:
    """`"wandb,tensorboard"` or a list as checked names; `none` is none. Raises ConfigError with near matches."""
    entries = [text] if isinstance(text, str) else text
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise ConfigError(f"trackers: {str(text)[:80]!r} is not accepted; a list of names is expected")
    parts = [part for entry in entries for part in entry.split(",")]
    names = tuple(dict.fromkeys(part.strip().lower() for part in parts))
    for name in names:
        if name != "none" and name not in TRACKERS:
            accepted = ", ".join((*TRACKERS.all(), "none"))
            raise ConfigError(
                f"--tracker: {name!r} is not a tracker; accepted are {accepted}, several separated by commas."
                f"{near_matches(name, TRACKERS.all())}"
            )
    if "none" in names and len(names) > 1:
        raise ConfigError("--tracker: none cannot be combined with other trackers")
    return () if "none" in names else names


def make_trackers(
    names: str | Sequence[str],
    output_dir: Path,
    options: TrackerOptions | None = None,
    *,
    upload_adapters: bool = False,
    report: Callable[[str], None] | None = None,
) -> TrackerGroup:
    """The trackers called `names`, and the metrics file, as one. Starts nothing yet and imports none of them.

    `report` is called at most once for each tracker, from any thread, with why it was switched off. Raises ConfigError
    for an unknown name and MissingExtraError for one that is not installed.
    """
    options = options or TrackerOptions(upload_adapters=upload_adapters)
    report = report or _print_to_stderr
    names = parse_tracker_names(names)
    kinds = {name: TRACKERS.get(name) for name in names}
    for name, kind in kinds.items():
        if kind.extra is None:
            continue
        if any(importlib.util.find_spec(package) is None for package in (kind.extra, *kind.needs)):
            raise MissingExtraError(f"the tracker {name}", kind.extra)
    trackers = [
        BackgroundTracker(
            name,
            kind.make(output_dir, options, report),
            report,
            max_queued=options.max_queued,
            stall_seconds=options.stall_seconds,
        )
        for name, kind in kinds.items()
    ]
    return TrackerGroup(MetricsFile(), trackers, options.close_seconds)


def _print_to_stderr(sentence: str) -> None:
    print(f"lorabench: {sentence}", file=sys.stderr)


class TrackerGroup:
    """All trackers of one command as one Tracker. Only the metrics file is written at once and may raise DiskError."""

    def __init__(self, metrics: MetricsFile, trackers: Sequence[BackgroundTracker], close_seconds: float) -> None:
        self.metrics = metrics
        self.trackers = tuple(trackers)
        self._close_seconds = close_seconds

    def start(self, run: TrackedRun) -> None:
        """A run begins."""
        self.metrics.start(run)
        for tracker in self.trackers:
            tracker.start(run)

    def resume_at(self, step: int) -> None:
        """The run goes on after `step`: what an earlier attempt wrote beyond it is forgotten."""
        self.metrics.truncate_after(step)

    def log_step(self, values: Values) -> None:
        """One optimizer step."""
        self.metrics.log_step(values)
        for tracker in self.trackers:
            tracker.log_step(values)

    def log_evaluation(self, values: Values) -> None:
        """One validation scoring."""
        self.metrics.log_evaluation(values)
        for tracker in self.trackers:
            tracker.log_evaluation(values)

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Continuations of the finished adapter."""
        for tracker in self.trackers:
            tracker.log_samples(samples)

    def finish(self, record: RunRecord | None, status: str | None = None) -> None:
        """The run ended, with the record's status where none is given; does not wait for the trackers."""
        status = str(status or (record.status if record is not None else "failed"))
        self.metrics.finish(record, status)
        for tracker in self.trackers:
            tracker.finish(record, status)

    def log_report(self, report: TrackedReport) -> None:
        """The report on the experiment was built; does not wait for the trackers."""
        for tracker in self.trackers:
            tracker.log_report(report)

    def close(self) -> None:
        """Wait, within bounds, for what is still on its way."""
        self.metrics.finish(None, "")
        deadline = time.monotonic() + self._close_seconds
        for tracker in self.trackers:
            tracker.close(max(0.1, deadline - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
