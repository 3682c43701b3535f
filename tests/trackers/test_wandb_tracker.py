"""What W&B's own reader finds in the files that a tracked run left."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorabench.records.schema import Drift, RunRecord, Status
from lorabench.trackers.base import TrackedReport, TrackedRun, TrackerOptions, evaluation_values
from lorabench.trackers.kinds.wandb import WandbTracker, attempt_id, choose_mode
from lorabench.trackers.make import make_trackers

from .conftest import step_values
from .reading import inspect, md5_of, merged, of_kind, offline_folders

NUM_STEPS = 30


def _track(tracker: Any, run: TrackedRun, record: RunRecord, num_steps: int = NUM_STEPS) -> None:
    tracker.start(run)
    for step in range(1, num_steps + 1):
        tracker.log_step(step_values(step))
        if step % 10 == 0 and record.validation is not None:
            tracker.log_evaluation(evaluation_values(step, 512 * step, record.validation))
    tracker.log_samples(record.samples)
    tracker.finish(record, record.status)


@pytest.mark.parametrize("attempts", [2])
def test_every_figure_is_read_back(
    attempts: int, tracked_run: TrackedRun, record: RunRecord, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    with make_trackers("wandb", tmp_path, report=said.append) as group:
        for attempt in range(1, attempts + 1):
            _track(group, replace(tracked_run, attempt=attempt), record)
    assert said == []
    assert capfd.readouterr() == ("", "")
    assert len(offline_folders(tmp_path)) == attempts

    expected = [
        {f"train/{name.removeprefix('train_')}": value for name, value in step_values(step).items()}
        for step in range(1, NUM_STEPS + 1)
    ]
    runs = []
    for folder in offline_folders(tmp_path):
        entries = inspect(folder)
        history = [entry["item"] for entry in of_kind(entries, "history")]
        steps = [
            {name: value for name, value in item.items() if name.startswith("train/")}
            for item in history
            if "train/step" in item
        ]
        assert steps == expected
        evaluations = [item for item in history if "validation/step" in item]
        assert [item["validation/step"] for item in evaluations] == [10, 20, 30]
        assert record.validation is not None
        assert {item["validation/bits_per_byte"] for item in evaluations} == {record.validation.bits_per_byte}
        assert [item["samples.nrows"] for item in history if "samples.nrows" in item] == [1]

        (run,) = of_kind(entries, "run")[:1]
        runs.append(run)
        assert run["project"] == "lorabench"
        assert run["run_group"] == tracked_run.group
        assert run["display_name"].startswith(tracked_run.title)
        assert {"tiny-model", "news", "lora", "rank-8"} <= set(run["tags"])
        config = run["config"]["update"]
        assert (config["rank"], config["learning_rate"], config["num_cores"]) == (8, 1e-3, 2)
        assert merged(entries, "config")["git_commit"] == "d" * 40
        summary = merged(entries, "summary")
        assert record.test is not None
        assert summary["test_bits_per_byte"] == record.test.bits_per_byte
        assert summary["val_perplexity"] == record.validation.perplexity
        assert (summary["adapter_mb"], summary["status"]) == (2.0, "completed")
        assert "completed" in of_kind(entries, "run")[-1]["tags"]
        axes = {
            metric["glob_name"]: metric["step_metric"] for metric in of_kind(entries, "metric") if "glob_name" in metric
        }
        assert axes == {"train/*": "train/step", "validation/*": "validation/step"}
        assert of_kind(entries, "exit")[-1].get("exit_code", 0) == 0
    assert len({run["run_id"] for run in runs}) == attempts


def test_system_metrics_are_sampled_along_the_run(
    tracked_run: TrackedRun, record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorabench.trackers.kinds.wandb.SYSTEM_METRICS_SECONDS", 0.2)
    # W&B samples in a process of its own, which may get no turn for a while on a busy machine.
    for attempt, seconds in enumerate((1.0, 8.0, 30.0)):
        output_dir = tmp_path / str(attempt)
        tracker = WandbTracker(output_dir, "lorabench", report=pytest.fail)
        tracker.start(tracked_run)
        time.sleep(seconds)
        tracker.finish(record, record.status)
        (folder,) = offline_folders(output_dir)
        if any("memory_percent" in entry["item"] for entry in of_kind(inspect(folder), "stats")):
            return
    pytest.fail("no system metrics in any of the runs")


def test_samples_stay_text(tracked_run: TrackedRun, record: RunRecord, tmp_path: Path) -> None:
    with make_trackers("wandb", tmp_path, report=pytest.fail) as group:
        _track(group, tracked_run, record, 1)
    (table,) = (tmp_path / "wandb").glob("offline-run-*/files/media/table/*.table.json")
    assert json.loads(table.read_text())["data"] == [["a" * 12, "Once <b>", "", "[red]upon"]]


def test_nothing_private_is_written(
    tracked_run: TrackedRun, record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "c0ffee" * 8
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setattr(sys, "argv", ["lorabench", "--password", secret])
    with make_trackers("wandb", tmp_path, report=pytest.fail) as group:
        _track(group, tracked_run, record, 2)
    (folder,) = offline_folders(tmp_path)
    assert not [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert not list(folder.rglob("code/*"))
    assert not list(folder.rglob("diff.patch"))
    assert not list(folder.rglob("requirements.txt"))
    assert not of_kind(inspect(folder), "request")


def test_a_failed_run_is_a_failed_run(tracked_run: TrackedRun, record: RunRecord, tmp_path: Path) -> None:
    failed = record.model_copy(update={"status": Status.DIVERGED, "status_reason": "the loss was not finite at step 3"})
    with make_trackers("wandb", tmp_path, report=pytest.fail) as group:
        _track(group, tracked_run, failed, 2)
    (folder,) = offline_folders(tmp_path)
    entries = inspect(folder)
    assert of_kind(entries, "exit")[-1]["exit_code"] == 1
    assert merged(entries, "summary")["status_reason"] == "the loss was not finite at step 3"
    assert "diverged" in of_kind(entries, "run")[-1]["tags"]


def test_the_adapter_is_handed_over_only_when_asked(
    tracked_run: TrackedRun, record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    adapter = tracked_run.folder / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"\0" * 64)
    (adapter / "optimizer.pt").write_bytes(b"not for others")
    for upload in (False, True):
        with make_trackers("wandb", tmp_path, TrackerOptions(upload_adapters=upload), report=pytest.fail) as group:
            _track(group, tracked_run, record, 1)
    with_artifact = [of_kind(inspect(folder), "artifact") for folder in offline_folders(tmp_path)]
    adapters = [entry for entries in with_artifact for entry in entries if entry["type"] == "lora-adapter"]
    (artifact,) = adapters
    names = {entry["path"] for entry in artifact["manifest"]["contents"]}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}


def test_the_report_is_an_artifact_that_waits_beside_its_run(
    report: TrackedReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    as_built = {file.name: md5_of(file) for file in report.files}
    with make_trackers("wandb", tmp_path, report=pytest.fail) as group:
        group.log_report(report)
    for file in report.files:
        file.write_text("a later command's", encoding="utf-8")
    (folder,) = offline_folders(tmp_path)
    entries = inspect(folder)
    (artifact,) = of_kind(entries, "artifact")
    assert (artifact["type"], artifact["name"]) == ("report", "report-first-look")
    contents = {entry["path"]: entry for entry in artifact["manifest"]["contents"]}
    assert {name: entry["digest"] for name, entry in contents.items()} == as_built
    waiting = {name: Path(entry["local_path"]) for name, entry in contents.items()}
    assert all(path.is_relative_to(folder) for path in waiting.values())
    assert {name: md5_of(path) for name, path in waiting.items()} == as_built
    (run,) = of_kind(entries, "run")[:1]
    assert (run["display_name"], run["run_group"], run["job_type"]) == ("report first look", "report", "first look")
    assert of_kind(entries, "exit")[-1].get("exit_code", 0) == 0
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_what_sums_a_run_up_can_be_sorted_by(tracked_run: TrackedRun, record: RunRecord, tmp_path: Path) -> None:
    drift = Drift(dataset="code", revision="1", base=record.base_validation, adapted=record.validation)
    with make_trackers("wandb", tmp_path, report=pytest.fail) as group:
        _track(group, tracked_run, record.model_copy(update={"drift": (drift,)}), 2)
    (folder,) = offline_folders(tmp_path)
    summary = {
        name: value
        for name, value in merged(inspect(folder), "summary").items()
        if not name.startswith(("_", "samples."))
    }
    no_numbers = {name for name, value in summary.items() if type(value) not in (int, float)}
    assert no_numbers == {"status", "status_reason"}
    assert set(summary) >= {"val_bits_per_byte", "gain", "tokens_per_second", "peak_memory_mb", "steps"}
    assert summary["gain"] == summary["worst_change_elsewhere"] == pytest.approx(250 / 300 - 1)


def test_long_and_hostile_names_are_accepted(tracked_run: TrackedRun, record: RunRecord, tmp_path: Path) -> None:
    run = replace(
        tracked_run,
        run_id="x" * 131,
        experiment="e" * 80,
        spec=tracked_run.spec.model_copy(update={"dataset": "/data/<b>\x1b[31m" + "long" * 50, "model": "m" * 200}),
        tags=("", "t" * 70),
    )
    with make_trackers("wandb", tmp_path, TrackerOptions(project="p/" + "q" * 200), report=pytest.fail) as group:
        _track(group, run, record, 1)
    assert len(of_kind(inspect(offline_folders(tmp_path)[0]), "history")) > 0


def test_ids_differ_by_attempt_and_by_machine(tracked_run: TrackedRun) -> None:
    ids = {attempt_id(replace(tracked_run, attempt=attempt)) for attempt in (1, 1, 2)}
    assert len(ids) == 3
    assert all(len(name) < 64 and name.replace("-", "").isalnum() for name in ids)


@pytest.mark.parametrize(
    ("environment", "mode", "num_said"),
    [
        ({}, "offline", 0),
        ({"WANDB_API_KEY": "k" * 40}, "online", 0),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, "offline", 0),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "disabled"}, "disabled", 0),
        ({"WANDB_MODE": "dryrun"}, "offline", 0),
        ({"WANDB_MODE": "online"}, "offline", 1),
        ({"WANDB_MODE": "sideways", "WANDB_API_KEY": "k" * 40}, "offline", 1),
    ],
)
def test_online_needs_a_key_and_nobody_is_asked(
    environment: dict[str, str], mode: str, num_said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    assert choose_mode(said.append) == mode
    assert len(said) == num_said


def test_a_login_counts_as_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    host = wandb.setup().settings.base_url.removeprefix("https://")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {host}\n  login user\n  password {'a1' * 20}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert choose_mode(pytest.fail) == "online"


def test_disabled_writes_nothing(
    tracked_run: TrackedRun, record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with make_trackers("wandb", tmp_path, report=pytest.fail) as group:
        _track(group, tracked_run, record, 2)
    assert not (tmp_path / "wandb").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refuses", "never answers"])
def test_a_key_without_a_server_goes_on_offline(kind: str, tracked_run: TrackedRun, tmp_path: Path) -> None:
    """In a process of its own: W&B reads the server's address once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if kind == "refuses":
            listener.close()
        key = "feedface" * 5
        environment = dict(os.environ) | {"WANDB_API_KEY": key, "WANDB_BASE_URL": f"http://127.0.0.1:{port}"}
        started = time.monotonic()
        finished = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning", "-c", _PROGRAM, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    assert time.monotonic() - started < 60
    assert float(finished.stdout) < 0.5
    assert finished.stderr.count("tracking goes on offline") == 1
    assert len(finished.stderr.splitlines()) == 1
    assert key not in finished.stderr
    (folder,) = offline_folders(tmp_path)
    history = [entry["item"] for entry in of_kind(inspect(folder), "history")]
    assert [item["train/step"] for item in history] == list(range(1, 51))
    for path in tmp_path.rglob("*"):
        assert not (path.is_file() and key.encode() in path.read_bytes())


_PROGRAM = """
import sys, time
from pathlib import Path
from lorabench.methods.settings import AdapterSettings
from lorabench.experiment.schema import EvaluationSettings, RunSpec, TrainingSettings
from lorabench.trackers.base import TrackedRun
from lorabench.trackers.kinds import wandb as wandb_tracker
from lorabench.trackers.make import make_trackers

wandb_tracker.INIT_SECONDS = 3.0
output = Path(sys.argv[1])
spec = RunSpec(model="m", model_revision="1", dataset="d", dataset_revision="1", adapter=AdapterSettings(),
               training=TrainingSettings(precision="fp32"), evaluation=EvaluationSettings(), seed=0)
with make_trackers("wandb", output) as group:
    started = time.monotonic()
    group.start(TrackedRun("run", 1, "experiment", spec, output / "runs" / "run"))
    for step in range(1, 51):
        group.log_step({"step": step, "loss": 1.0 / step})
    group.finish(None, "cancelled")
    print(time.monotonic() - started)
"""


def test_a_step_is_cheap(tracked_run: TrackedRun, record: RunRecord, tmp_path: Path) -> None:
    tracker = WandbTracker(tmp_path, "lorabench")
    tracker.start(tracked_run)
    started = time.perf_counter()
    for step in range(1, 201):
        tracker.log_step(step_values(step))
    assert (time.perf_counter() - started) / 200 < 5e-3
    tracker.finish(None, "cancelled")
