"""trackio: a dashboard on this machine, its files under `OUTPUT/trackio`. Nothing is sent to a Space or a server.

Look at it with `TRACKIO_DIR=OUTPUT/trackio trackio show --project lorabench`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorabench.records.schema import RunRecord, Sample
from lorabench.trackers.base import (
    TrackedReport,
    TrackedRun,
    TrackerKind,
    Values,
    artifact_name,
    clean_name,
    run_config,
    run_tags,
)
from lorabench.trackers.summary import final_facts, final_values

_chosen_here: set[str] = set()


class TrackioTracker:
    """See Tracker. trackio has one folder per process: a second output folder in the same process is refused."""

    def __init__(self, output_dir: Path, project: str) -> None:
        self._folder = (output_dir / "trackio").absolute()
        self._project = project
        self._run: Any = None
        self._step = 0

    def start(self, run: TrackedRun) -> None:
        """Begin a trackio run; seeds and attempts of a configuration are runs of one group."""
        if self._run is not None:
            self.finish(None, "failed")
        trackio = _local_trackio(self._folder)
        config = {key: value for key, value in run_config(run).items() if value is not None}
        self._step = 0
        self._run = trackio.init(
            project=self._project,
            name=clean_name(f"{run.title} {run.run_id.rpartition('_')[2]}", 200),  # trackio tells runs by their names
            group=clean_name(run.group, 200),
            config=config | {"tags": list(run_tags(run))},
            embed=False,
        )

    def log_step(self, values: Values) -> None:
        """One step."""
        self._step = int(values["step"])
        self._log({f"train/{name.removeprefix('train_')}": value for name, value in values.items() if name != "step"})

    def log_evaluation(self, values: Values) -> None:
        """One evaluation, at its step."""
        self._step = int(values["step"])
        figures = {name: value for name, value in values.items() if name != "step"}
        self._log({f"validation/{name.removeprefix('validation_')}": value for name, value in figures.items()})

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """The continuations, as a table."""
        if self._run is None or not samples:
            return
        import pandas as pd
        import trackio

        rows = [
            {
                "document": sample.document_hash[:12],
                "prompt": sample.prompt,
                "base model": sample.base_continuation or "",
                "fine-tuned": sample.continuation,
            }
            for sample in samples
        ]
        self._log({"samples": trackio.Table(dataframe=pd.DataFrame(rows))})

    def finish(self, record: RunRecord | None, status: str) -> None:
        """The final figures as `final/` values, then the end of the run."""
        run, self._run = self._run, None
        if run is None:
            return
        if record is not None:
            figures = final_values(record) | final_facts(record)
            run.log({f"final/{name}": value for name, value in figures.items() if value is not None}, step=self._step)
        run.finish()

    def log_report(self, report: TrackedReport) -> None:
        """The report's files, as an artifact of a run of its own."""
        trackio = _local_trackio(self._folder)
        run = trackio.init(project=self._project, name=clean_name(report.title, 200), embed=False)
        artifact = trackio.Artifact(artifact_name(report), type="report")
        for file in report.files:
            artifact.add_file(file, name=file.name)
        run.log_artifact(artifact)
        run.finish()

    def _log(self, values: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.log({name: value for name, value in values.items() if value is not None}, step=self._step)


def _local_trackio(folder: Path) -> Any:
    """trackio, writing to this machine only and to the console never."""
    chosen_by_user = "TRACKIO_DIR" in os.environ and os.environ["TRACKIO_DIR"] not in _chosen_here
    if not chosen_by_user and "trackio" not in sys.modules:
        os.environ["TRACKIO_DIR"] = str(folder)
        _chosen_here.add(str(folder))
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_WEBHOOK_URL"):
        os.environ.pop(name, None)
    import trackio
    import trackio.run
    import trackio.utils

    used = Path(trackio.utils.TRACKIO_DIR)
    if used != folder and not chosen_by_user:
        raise RuntimeError(f"trackio already writes to {used} in this process")
    for module in (trackio, trackio.run, trackio.utils):
        module.__dict__["print"] = _say_nothing
    return trackio


def _say_nothing(*words: object, **options: object) -> None:
    """In place of `print`, in trackio's modules alone: redirecting the stream would silence other threads too."""


TRACKER = TrackerKind(lambda output_dir, options, _: TrackioTracker(output_dir, options.project), extra="trackio")
