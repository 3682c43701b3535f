"""What TensorBoard's, trackio's and MLflow's own readers find in the files that a tracked run left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorabench.records.schema import RunRecord
from lorabench.trackers.base import TrackedRun, evaluation_values
from lorabench.trackers.make import make_trackers

from .conftest import step_values

NUM_STEPS = 30


def _track(tracker: Any, run: TrackedRun, record: RunRecord, first: int = 1, last: int = NUM_STEPS) -> None:
    tracker.start(run)
    for step in range(first, last + 1):
        tracker.log_step(step_values(step))
        if step % 10 == 0 and record.validation is not None:
            tracker.log_evaluation(evaluation_values(step, 512 * step, record.validation))
    tracker.log_samples(record.samples)
    tracker.finish(record, record.status)


def _load(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_tensorboard_reads_every_step_back(tracked_run: TrackedRun, record: RunRecord, tmp_path: Path) -> None:
    with make_trackers("tensorboard", tmp_path, report=pytest.fail) as group:
        _track(group, tracked_run, record)
    loaded = _load(tmp_path / "tensorboard" / tracked_run.run_id)
    for name in ("loss", "smoothed_loss", "learning_rate", "gradient_norm", "tokens_per_second", "seconds"):
        points = [(point.step, point.value) for point in loaded.Scalars(f"train/{name}")]
        assert points == [(step, pytest.approx(step_values(step)[name], rel=1e-6)) for step in range(1, NUM_STEPS + 1)]
    assert [point.step for point in loaded.Scalars("validation/bits_per_byte")] == [10, 20, 30]
    assert record.test is not None
    (final,) = loaded.Scalars("final/test_bits_per_byte")
    assert final.value == pytest.approx(record.test.bits_per_byte, rel=1e-6)
    (sample,) = loaded.Tensors("samples/0")
    assert sample.tensor_proto.string_val[0].decode() == "    prompt:\n    Once <b>\n    adapted:\n    [red]upon"
    plugin = loaded.summary_metadata["_hparams_/session_start_info"].plugin_data
    assert b"learning_rate" in plugin.content


def test_a_resumed_run_draws_one_curve(tracked_run: TrackedRun, record: RunRecord, tmp_path: Path) -> None:
    for first, last in ((1, 20), (15, 30)):
        with make_trackers("tensorboard", tmp_path, report=pytest.fail) as group:
            _track(group, replace(tracked_run, attempt=1), record, first, last)
    points = _load(tmp_path / "tensorboard" / tracked_run.run_id).Scalars("train/loss")
    assert [point.step for point in points] == list(range(1, 31))


def test_trackio_reads_every_step_back(tmp_path: Path) -> None:
    """In a process of its own: trackio has one folder per process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACKIO")}
    finished = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        env=environment | {"TRACKIO_SPACE_ID": "somebody/elsewhere", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    found = json.loads(finished.stdout)
    assert found["runs"] == ["lora-r16 lr0.0003 s0 d m #2 run", "lora-r16 lr0.0003 s0 d m run", "report my experiment"]
    assert found["config"]["rank"] == 16
    assert found["steps"] == [[step, 1.0 / step] for step in range(1, 51)]
    assert found["evaluations"] == [[50, 0.5]]
    assert found["report"] == ["report", {"report.html": "<b>page</b>"}]
    assert found["off"] == ["trackio already writes to"]
    assert (tmp_path / "one" / "trackio").is_dir()
    assert not (tmp_path / "two" / "trackio").exists()


_PROGRAM = """
import json, sys
from pathlib import Path
from lorabench.methods.settings import AdapterSettings
from lorabench.experiment.schema import EvaluationSettings, RunSpec, TrainingSettings
from lorabench.records.schema import Sample
from lorabench.trackers.base import TrackedReport, TrackedRun
from lorabench.trackers.make import make_trackers

output = Path(sys.argv[1])
spec = RunSpec(model="m", model_revision="1", dataset="d", dataset_revision="1", adapter=AdapterSettings(),
               training=TrainingSettings(precision="fp32"), evaluation=EvaluationSettings(), seed=0)
said = []
with make_trackers("trackio", output / "one", report=said.append) as group:
    for attempt in (1, 2):
        group.start(TrackedRun("run", attempt, "experiment", spec, output / "one" / "runs" / "run"))
        for step in range(1, 51):
            group.log_step({"step": step, "loss": 1.0 / step})
        group.log_evaluation({"step": 50, "validation_bits_per_byte": 0.5})
        group.log_samples([Sample(document_hash="a" * 64, prompt="<b>", continuation="c")])
        group.finish(None, "completed")
    page = output / "report.html"
    page.write_text("<b>page</b>")
    group.log_report(TrackedReport("my experiment", (page,)))
assert said == [], said
page.unlink()
with make_trackers("trackio", output / "two", report=said.append) as group:
    group.start(TrackedRun("run", 1, "experiment", spec, output / "two" / "runs" / "run"))

import trackio
from trackio import Api
from trackio.sqlite_storage import SQLiteStorage
runs = sorted(Api().runs("lorabench"), key=lambda run: run.name)
rows = SQLiteStorage.get_logs("lorabench", runs[0].name, max_points=None, run_id=runs[0].id)
reader = trackio.init(project="lorabench", name="reader", embed=False)
artifact = reader.use_artifact("report-my-experiment:latest")
folder = Path(artifact.download(output / "downloaded"))
reader.finish()
print(json.dumps({
    "runs": [run.name for run in runs],
    "config": runs[0].config,
    "steps": [[row["step"], row["train/loss"]] for row in rows if row.get("train/loss") is not None],
    "evaluations": [[row["step"], row["validation/bits_per_byte"]]
                    for row in rows if row.get("validation/bits_per_byte") is not None],
    "report": [artifact.type, {path.name: path.read_text() for path in folder.iterdir()}],
    "off": [sentence.split(": ")[1][:25] for sentence in said],
}))
"""


@pytest.mark.slow
def test_mlflow_reads_every_step_back(record: RunRecord, tmp_path: Path) -> None:
    """In a process of its own, which does not look like a test and in which every connection fails."""
    work = tmp_path / "work"
    work.mkdir()
    hidden = ("MLFLOW", "PYTEST", "CI", "GITHUB")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    finished = subprocess.run(
        [sys.executable, "-c", _MLFLOW_PROGRAM, str(tmp_path / "out")],
        env=environment | {"MY_PASSWORD": "hunter2-planted", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
        input=record.model_dump_json(),
        capture_output=True,
        text=True,
        timeout=400,
        cwd=work,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    found = json.loads(finished.stdout)
    assert found["runs"] == [
        ["lora-r16 lr0.0003 s0 d m", "FINISHED"],
        ["lora-r16 lr0.0003 s0 d m #2", "FAILED"],
        ["report my experiment", "FINISHED"],
    ]
    assert found["report"] == "<b>page</b>"
    assert found["params"]["rank"] == "16"
    assert found["params"]["evaluation.times"] == "4"
    assert found["params"]["note"] == "is *** safe?"
    assert found["tags"]["group"].startswith("lora-r16 lr0.0003 d m ")
    assert found["tags"]["status"] == "completed"
    assert not [name for name in found["tags"] if name.startswith("mlflow.source") or name == "mlflow.user"]
    assert found["steps"] == [[step, 1.0 / step] for step in range(1, 1101)]
    assert found["evaluations"] == [[1100, 0.5]]
    assert found["samples"][0]["continuation"] == "c"
    assert record.test is not None
    assert found["final"] == record.test.bits_per_byte
    assert list(work.iterdir()) == []
    assert b"hunter2-planted" not in (tmp_path / "out" / "mlflow" / "mlflow.db").read_bytes()


_MLFLOW_PROGRAM = """
import json, socket, sys
from pathlib import Path
from lorabench.methods.settings import AdapterSettings
from lorabench.experiment.schema import EvaluationSettings, RunSpec, TrainingSettings
from lorabench.records.schema import RunRecord, Sample
from lorabench.trackers.base import TrackedReport, TrackedRun, TrackerOptions
from lorabench.trackers.make import make_trackers

def refuse(*anything):
    print("a connection was tried", file=sys.stderr)
    raise OSError("no network")

socket.socket.connect = socket.getaddrinfo = refuse
output = Path(sys.argv[1])
spec = RunSpec(model="m", model_revision="1", dataset="d", dataset_revision="1", adapter=AdapterSettings(),
               training=TrainingSettings(precision="fp32"), evaluation=EvaluationSettings(), seed=0)
said = []
with make_trackers("mlflow", output, TrackerOptions(close_seconds=200), report=said.append) as group:
    for attempt in (1, 2):
        group.start(TrackedRun("run", attempt, "my experiment", spec, output / "runs" / "run",
                               extra={"note": "is hunter2-planted safe?"}))
        for step in range(1, 1101 if attempt == 1 else 2):
            group.log_step({"step": step, "loss": 1.0 / step, "learning_rate": None})
        if attempt == 1:
            group.log_evaluation({"step": 1100, "validation_bits_per_byte": 0.5})
            group.log_samples([Sample(document_hash="a" * 64, prompt="<b>", continuation="c")])
            group.finish(RunRecord.model_validate_json(sys.stdin.read()), None)
        else:
            group.finish(None, "diverged")
    page = output / "report.html"
    page.write_text("<b>page</b>")
    group.log_report(TrackedReport("my experiment", (page,)))
page.unlink()
assert said == [], said

from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=f"sqlite:///{output / 'mlflow' / 'mlflow.db'}")
experiment = client.get_experiment_by_name("my experiment")
runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
history = lambda name: [[point.step, point.value] for point in client.get_metric_history(runs[0].info.run_id, name)]
report = client.download_artifacts(runs[2].info.run_id, "report.html")
samples = client.download_artifacts(runs[0].info.run_id, "samples.json")
print(json.dumps({
    "runs": [[run.info.run_name, run.info.status] for run in runs],
    "params": runs[0].data.params,
    "tags": runs[0].data.tags,
    "steps": sorted(history("train/loss")),
    "evaluations": history("validation/bits_per_byte"),
    "final": runs[0].data.metrics["final/test_bits_per_byte"],
    "report": Path(report).read_text(),
    "samples": json.loads(Path(samples).read_text()),
}))
"""
