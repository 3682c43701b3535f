"""MLflow: a database and files under `OUTPUT/mlflow`, or where MLFLOW_TRACKING_URI says.

lorabench's experiments are MLflow's, and each attempt is a run. Only MLflow's client is used: it looks up no git state,
host or user, and its reports to its makers are switched off.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorabench.core.redaction import without_secrets
from lorabench.records.schema import RunRecord, Sample
from lorabench.trackers.base import TrackedReport, TrackedRun, TrackerKind, Values, clean_name, run_config, run_tags
from lorabench.trackers.summary import final_facts, final_values

FLUSH_SECONDS = 2.0
"""Figures are handed over together: a transaction of the database takes up to 50 ms."""
MAX_METRICS = 1000
MAX_PARAMS = 100
"""Of one call, as MLflow allows."""
MAX_PARAM_LENGTH = 6000
_END_STATES = {"completed": "FINISHED", "stopped_early": "FINISHED", "cancelled": "KILLED"}


class MlflowTracker:
    """See Tracker; raises whatever MLflow raises."""

    def __init__(self, output_dir: Path) -> None:
        self._folder = (output_dir / "mlflow").absolute()
        self._client: Any = None
        self._run_id: str | None = None
        self._step = 0
        self._waiting: list[Any] = []
        self._flushed_at = 0.0

    def start(self, run: TrackedRun) -> None:
        """Begin an MLflow run in the experiment's group, with the settings as parameters."""
        if self._run_id is not None:
            self.finish(None, "failed")
        self._client = self._client or _client(self._folder)
        adapter = run.spec.adapter
        tags = {"run_id": run.run_id, "attempt": run.attempt, "group": run.group, "status": "running"}
        tags |= {"model": run.spec.model, "dataset": run.spec.dataset, "method": adapter.method}
        tags |= {"tags": ", ".join(run_tags(run))}
        started = self._client.create_run(
            self._experiment_id(_experiment_name(run.experiment)),
            run_name=clean_name(run.title, 250),
            tags={key: _plain(value) for key, value in tags.items()},
        )
        self._run_id, self._step, self._flushed_at = started.info.run_id, 0, time.monotonic()
        self._params(run_config(run))

    def log_step(self, values: Values) -> None:
        """One point on every `train/` curve."""
        self._metrics("train", values, "train_")
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS or len(self._waiting) > MAX_METRICS:
            self._flush()

    def log_evaluation(self, values: Values) -> None:
        """One point on every `validation/` curve."""
        self._metrics("validation", values, "validation_")
        self._flush()

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """The continuations, as the run's file `samples.json`."""
        if self._run_id is not None and samples:
            rows = [sample.model_dump(mode="json") for sample in samples]
            text = json.dumps(rows, ensure_ascii=False, indent=1)
            self._client.log_text(self._run_id, text, "samples.json")

    def finish(self, record: RunRecord | None, status: str) -> None:
        """The final figures as `final/` metrics, what is no number as tags, then the end of the run."""
        if self._run_id is None:
            return
        from mlflow.entities import RunTag

        final = {} if record is None else final_values(record) | final_facts(record)
        self._metrics("final", final | {"step": self._step}, "")
        self._flush()
        facts = {name: value for name, value in final.items() if isinstance(value, str)} | {"status": str(status)}
        self._client.log_batch(self._run_id, tags=[RunTag(name, _plain(value)) for name, value in facts.items()])
        self._client.set_terminated(self._run_id, _END_STATES.get(str(status), "FAILED"))
        self._run_id = None

    def log_report(self, report: TrackedReport) -> None:
        """The report's files, as those of a run of their own."""
        self._client = self._client or _client(self._folder)
        started = self._client.create_run(
            self._experiment_id(_experiment_name(report.experiment)),
            run_name=clean_name(report.title, 250),
            tags={"status": "completed", "tags": "report"},
        )
        for file in report.files:
            self._client.log_artifact(started.info.run_id, str(file))
        self._client.set_terminated(started.info.run_id, "FINISHED")

    def _experiment_id(self, name: str) -> str:
        """Of the MLflow experiment `name`, which another process may be making at the same time."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            where = None if os.environ.get("MLFLOW_TRACKING_URI") else (self._folder / "artifacts").as_uri()
            with contextlib.suppress(MlflowException):
                return str(self._client.create_experiment(name, artifact_location=where))
            found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id)

    def _params(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, _plain(value)) for name, value in config.items() if value is not None]
        for first in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(self._run_id, params=params[first : first + MAX_PARAMS])

    def _metrics(self, group: str, values: Values, prefix: str) -> None:
        from mlflow.entities import Metric

        if self._run_id is None:
            return
        self._step = int(values["step"])
        now = int(time.time() * 1000)
        self._waiting += [
            Metric(f"{group}/{name.removeprefix(prefix)}", float(value), now, self._step)
            for name, value in values.items()
            if name != "step" and isinstance(value, int | float)
        ]

    def _flush(self) -> None:
        waiting, self._waiting, self._flushed_at = self._waiting, [], time.monotonic()
        for first in range(0, len(waiting), MAX_METRICS):
            self._client.log_batch(self._run_id, metrics=waiting[first : first + MAX_METRICS])


def _client(folder: Path) -> Any:
    """MLflow's client, which writes to `folder` unless MLFLOW_TRACKING_URI says otherwise, and not to the console."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        if any(character in str(folder) for character in "?#%"):
            raise RuntimeError(f"MLflow cannot write to {folder}: its path has a ?, # or %")
        folder.mkdir(parents=True, exist_ok=True)
        address = f"sqlite:///{folder / 'mlflow.db'}"
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=address)


def _experiment_name(name: str) -> str:
    return clean_name(without_secrets(name), 250)


def _plain(value: Any) -> str:
    return without_secrets(value if isinstance(value, str) else json.dumps(value, default=str))[:MAX_PARAM_LENGTH]


TRACKER = TrackerKind(lambda output_dir, _options, _: MlflowTracker(output_dir), "mlflow", ("sqlalchemy", "alembic"))
