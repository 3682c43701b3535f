"""metrics.jsonl: every step and every evaluation of a run, always written, whatever else tracks it.

One JSON object a line, `{"kind": "step", …}` or `{"kind": "evaluation", …}`, in the order they happened. Each line
reaches the operating system at once, so a killed process loses none. A run that is taken up again writes no step twice
and leaves none out: it goes on from a step up to which the file is whole.

Until the run is finished a mark beside its checkpoints holds the hash of what was safe on disk at the last of them. A
file that does not begin with that was damaged meanwhile: it is set aside, and the run begins anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import numbers
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lorabench.core.errors import DiskError
from lorabench.core.storage import open_regular, recall, remember, set_aside
from lorabench.records.schema import RunRecord, Sample
from lorabench.trackers.base import TrackedRun, Values

METRICS_NAME = "metrics.jsonl"
MARK_NAME = "checkpoints/metrics-mark.json"
_LOG = logging.getLogger(__name__)


class MetricsFile:
    """The tracker that is always on. Raises DiskError: without it a run has no curve."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._mark = Path()
        self._size, self._digest = 0, hashlib.sha256()
        """Of what is in the file."""
        self._last_step = 0
        self._evaluated: set[int] = set()

    def start(self, run: TrackedRun) -> None:
        """Open the run's file and see what an earlier attempt left there; a line cut short by a kill is dropped."""
        self._close()
        self._path, self._mark = run.folder / METRICS_NAME, run.folder / MARK_NAME
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            if not _begins_as_marked(self._path, self._mark):
                if self._path.exists():
                    moved = set_aside(self._path)
                    _LOG.warning("%s is damaged: set aside as %s; the run begins anew", self._path, moved.name)
                self._mark.unlink(missing_ok=True)
            self._size = 0
            self._file = self._path.open("a+b")
        except OSError as error:
            raise DiskError(f"{self._path}: the run's figures cannot be written: {error.strerror}") from None
        self._cut(None)

    @property
    def last_step(self) -> int:
        """Every step up to this one is in the file."""
        return self._last_step

    def sync(self) -> None:
        """Make what was written survive a power cut: a checkpoint must never be ahead of this file.

        Raises DiskError too where the file, or its folder, was removed or replaced while the run wrote to it.
        """
        if self._file is None or self._path is None:
            return
        if not _is_at(self._file, self._path):
            raise DiskError(f"{self._path} vanished while the run wrote to it; give the same command again")
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DiskError(f"{self._path}: the run's figures cannot be written: {error.strerror}") from None
        remember(self._mark, [self._size, self._digest.hexdigest()])

    def truncate_after(self, step: int) -> None:
        """Forget every line of a step after `step`: the run goes on from there."""
        self._cut(step)

    def log_step(self, values: Values) -> None:
        """Append a step; if it is there already, it and what follows are of an earlier attempt and are forgotten."""
        step = int(values["step"])
        if step <= self._last_step:
            self._cut(step - 1)
        self._write("step", values)
        self._last_step = step

    def log_evaluation(self, values: Values) -> None:
        """Append an evaluation, once for every step."""
        step = int(values["step"])
        if step not in self._evaluated:
            self._write("evaluation", values)
            self._evaluated.add(step)

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Nothing: samples lie in the record."""

    def finish(self, record: RunRecord | None, status: str) -> None:
        """Close the file."""
        self._close()

    def _write(self, kind: str, values: Values) -> None:
        if self._file is None:
            raise RuntimeError("no run was started")
        values = {"kind": kind} | {name: plain_value(value) for name, value in values.items()}
        line = json.dumps(values).encode("ascii") + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise DiskError(f"{self._path}: the run's figures cannot be written: {error.strerror}") from None
        self._size += len(line)
        self._digest.update(line)

    def _cut(self, last_step: int | None) -> None:
        """Keep whole lines, without a gap, up to `last_step` (None: all of them) and remember which steps they are."""
        if self._file is None:
            raise RuntimeError("no run was started")
        self._file.seek(0)
        before = self._size
        self._last_step, self._evaluated = 0, set()
        self._size, self._digest = 0, hashlib.sha256()
        for line, values in _whole_lines(self._file):
            step = values.get("step")
            if not isinstance(step, int) or (last_step is not None and step > last_step):
                break
            if values.get("kind") == "evaluation" and step == self._last_step and step not in self._evaluated:
                self._evaluated.add(step)
            elif values.get("kind") == "step" and step == self._last_step + 1:
                self._last_step = step
            else:
                break
            self._size += len(line)
            self._digest.update(line)
        if self._size < before:  # the mark first: it holds of the longer file too
            remember(self._mark, [self._size, self._digest.hexdigest()])
        self._file.truncate(self._size)
        self._file.seek(self._size)

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a failure to write was reported when it happened
                self._file.close()
            self._file = None


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _begins_as_marked(path: Path, mark: Path) -> bool:
    """Whether the file still begins with what was safe on disk; a file without a mark does."""
    known = recall(mark)
    if known is None:
        return True
    size, digest = known
    try:
        with open_regular(path) as file:
            return bool(hashlib.sha256(file.read(size)).hexdigest() == digest)
    except OSError:
        return False


def _whole_lines(file: BinaryIO) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for line in file:
        try:
            values = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            return
        if not isinstance(values, dict):
            return
        yield line, values


def plain_value(value: Any) -> Any:
    """A value that JSON has: NaN and infinities as null, anything unknown as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return str(value)
