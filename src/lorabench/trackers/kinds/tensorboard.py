"""TensorBoard files under `OUTPUT/tensorboard`, written with TensorBoard's own writer and no TensorFlow.

One folder per run, so that `tensorboard --logdir OUTPUT/tensorboard` lists runs by their names. A run that is taken up
again goes on in its folder, and TensorBoard is given the step from which on the older figures no longer hold.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorabench.records.schema import RunRecord, Sample
from lorabench.trackers.base import TrackedReport, TrackedRun, TrackerKind, Values, run_config
from lorabench.trackers.summary import final_values

FLUSH_SECONDS = 10


class TensorboardTracker:
    """See Tracker."""

    def __init__(self, output_dir: Path) -> None:
        self._folder = output_dir / "tensorboard"
        self._writer: Any = None
        self._has_step = False
        self._last_step = 0

    def start(self, run: TrackedRun) -> None:
        """Open the run's folder and write its configuration."""
        from tensorboard.plugins.hparams import summary_v2 as hparams
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._close()
        self._has_step, self._last_step = False, 0
        self._writer = EventFileWriter(str(self._folder / run.run_id), flush_secs=FLUSH_SECONDS)
        config = {name: _plain(value) for name, value in run_config(run).items() if value is not None}
        self._add(hparams.hparams_pb(config, trial_id=run.run_id), 0)

    def log_step(self, values: Values) -> None:
        """One point on every `train/` curve."""
        step = int(values["step"])
        if not self._has_step:
            self._begin_at(step)
        self._scalars("train", values, step, "train_")

    def log_evaluation(self, values: Values) -> None:
        """One point on every `validation/` curve."""
        self._scalars("validation", values, int(values["step"]), "validation_")

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Each continuation as a text, indented: TensorBoard then shows it as it is."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        for index, sample in enumerate(samples):
            parts = {"prompt": sample.prompt, "base": sample.base_continuation, "adapted": sample.continuation}
            lines = [
                f"    {line}"
                for name, text in parts.items()
                if text is not None
                for line in (f"{name}:", *text.splitlines())
            ]
            self._add(text_pb(f"samples/{index}", "\n".join(lines)), self._last_step)

    def finish(self, record: RunRecord | None, status: str) -> None:
        """Write the final figures as `final/` points and close the file."""
        if record is not None and self._writer is not None:
            self._scalars("final", final_values(record), self._last_step, "")
        self._close()

    def log_report(self, report: TrackedReport) -> None:
        """Nothing: TensorBoard has no place for files."""

    def _begin_at(self, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._has_step = True
        started = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time.time(), step=step, session_log=started))

    def _scalars(self, group: str, values: Values, step: int, prefix: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._last_step = max(self._last_step, step)
        points = [
            Summary.Value(tag=f"{group}/{name.removeprefix(prefix)}", simple_value=float(value))
            for name, value in values.items()
            if name != "step" and isinstance(value, int | float)
        ]
        self._add(Summary(value=points), step)

    def _add(self, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        if self._writer is not None:
            self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)


TRACKER = TrackerKind(lambda output_dir, _options, _: TensorboardTracker(output_dir), extra="tensorboard")
