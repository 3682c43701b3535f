from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lorabench.core.errors import ConfigError, MissingExtraError
from lorabench.core.redaction import without_anything_key_like
from lorabench.records.schema import RunRecord, Sample
from lorabench.report.table import csv_rows
from lorabench.trackers.background import BackgroundTracker, plain_reason
from lorabench.trackers.base import TrackedRun, TrackerKind, Values, run_config, run_tags
from lorabench.trackers.jsonl import MetricsFile
from lorabench.trackers.make import TRACKERS, TrackerGroup, make_trackers, parse_tracker_names
from lorabench.trackers.summary import final_values

from .conftest import step_values


class Recorder:
    """A tracker that keeps what it is told, and misbehaves where asked."""

    def __init__(self, misbehave: dict[str, Callable[[], None]] | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._misbehave = misbehave or {}

    def _take(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        if name in self._misbehave:
            self._misbehave[name]()

    def start(self, run: TrackedRun) -> None:
        self._take("start", run.run_id)

    def log_step(self, values: Values) -> None:
        self._take("log_step", values["step"])

    def log_evaluation(self, values: Values) -> None:
        self._take("log_evaluation", values["step"])

    def log_samples(self, samples: Sequence[Sample]) -> None:
        self._take("log_samples", len(samples))

    def finish(self, record: RunRecord | None, status: str) -> None:
        self._take("finish", status)


def test_a_tracker_of_ones_own(tmp_path: Path, tracked_run: TrackedRun) -> None:
    recorder = Recorder()
    TRACKERS.add("recorder", TrackerKind(lambda output_dir, options, report: recorder))
    try:
        with make_trackers("recorder", tmp_path, report=pytest.fail) as group:
            group.start(tracked_run)
            group.log_step(step_values(1))
            group.finish(None, "completed")
    finally:
        TRACKERS.remove("recorder")
    assert recorder.calls == [("start", tracked_run.run_id), ("log_step", 1), ("finish", "completed")]


def _fail() -> None:
    raise RuntimeError("the server said no\nwith key sesame-open-1234567890")


def _group(tracker: Recorder, said: list[str], close_seconds: float = 5.0, **options: Any) -> TrackerGroup:
    background = BackgroundTracker("probe", tracker, said.append, **options)
    return TrackerGroup(MetricsFile(), [background], close_seconds)


def _drive(group: TrackerGroup, run: TrackedRun, record: RunRecord, num_steps: int = 20) -> None:
    group.start(run)
    for step in range(1, num_steps + 1):
        group.log_step(step_values(step))
    group.log_evaluation({"step": num_steps, "validation_loss": 1.0})
    group.log_samples(record.samples)
    group.finish(record, record.status)


def _num_lines(run: TrackedRun) -> int:
    return len([json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()])


def test_a_tracker_is_told_everything_in_order(tracked_run: TrackedRun, record: RunRecord) -> None:
    said: list[str] = []
    tracker = Recorder()
    with _group(tracker, said) as group:
        _drive(group, tracked_run, record, 3)
    assert tracker.calls == [
        ("start", tracked_run.run_id),
        *[("log_step", step) for step in (1, 2, 3)],
        ("log_evaluation", 3),
        ("log_samples", 1),
        ("finish", "completed"),
    ]
    assert said == []


@pytest.mark.parametrize("call", ["start", "log_step", "log_evaluation", "log_samples", "finish"])
def test_a_failure_at_any_call_is_reported_once_and_ends_the_tracker(
    call: str, tracked_run: TrackedRun, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "sesame-open-1234567890")
    said: list[str] = []
    tracker = Recorder({call: _fail})
    with _group(tracker, said) as group:
        _drive(group, tracked_run, record)
        _drive(group, tracked_run, record)
    assert len(said) == 1
    assert "probe" in said[0]
    assert "the server said no" in said[0]
    assert "sesame" not in said[0]
    assert [name for name, _ in tracker.calls].count(call) == 1
    assert _num_lines(tracked_run) == 21


def test_a_tracker_that_hangs_costs_the_run_nothing(tracked_run: TrackedRun, record: RunRecord) -> None:
    said: list[str] = []
    released = threading.Event()
    tracker = Recorder({"start": lambda: released.wait(30) and None})
    group = _group(tracker, said, close_seconds=0.2)
    started = time.perf_counter()
    _drive(group, tracked_run, record, 200)
    group.close()
    seconds = time.perf_counter() - started
    released.set()
    assert seconds < 2.0
    assert _num_lines(tracked_run) == 201
    assert said == [
        "tracking with probe is switched off: it was not done 0 seconds after the last run; "
        "every figure is in metrics.jsonl"
    ]


def test_a_tracker_that_hangs_for_long_is_given_up_while_the_run_goes_on(tracked_run: TrackedRun) -> None:
    said: list[str] = []
    released = threading.Event()
    group = _group(Recorder({"start": lambda: released.wait(30) and None}), said, stall_seconds=0.05)
    group.start(tracked_run)
    deadline = time.monotonic() + 10
    step = 0
    while not said and time.monotonic() < deadline:
        step += 1
        group.log_step(step_values(step))
        time.sleep(0.01)
    assert "has not answered" in said[0]
    assert group.trackers[0].is_off
    group.close()
    released.set()


def test_a_tracker_that_falls_behind_is_given_up(tracked_run: TrackedRun) -> None:
    said: list[str] = []
    released = threading.Event()
    group = _group(Recorder({"start": lambda: released.wait(30) and None}), said, max_queued=10)
    group.start(tracked_run)
    for step in range(1, 30):
        group.log_step(step_values(step))
    assert len(said) == 1
    assert "too far behind" in said[0]
    group.close()
    released.set()


def test_a_step_costs_less_than_a_millisecond(tracked_run: TrackedRun, record: RunRecord) -> None:
    with _group(Recorder({"log_step": lambda: time.sleep(0.001)}), [], close_seconds=30) as group:
        group.start(tracked_run)
        started = time.perf_counter()
        for step in range(1, 501):
            group.log_step(step_values(step))
        assert (time.perf_counter() - started) / 500 < 1e-3


def test_names_are_checked_before_anything_starts(tmp_path: Path) -> None:
    assert parse_tracker_names("wandb, tensorboard,wandb") == ("wandb", "tensorboard")
    assert parse_tracker_names(["trackio", "wandb"]) == ("trackio", "wandb")
    assert parse_tracker_names("none") == ()
    with pytest.raises(ConfigError, match=r"'wanbd' is not a tracker.*Did you mean 'wandb'\?"):
        make_trackers("wanbd", tmp_path)
    with pytest.raises(ConfigError, match="cannot be combined"):
        parse_tracker_names("none,wandb")
    with pytest.raises(ConfigError, match="'' is not a tracker"):
        parse_tracker_names("wandb,")


@pytest.mark.parametrize("name", ["trackio", "tensorboard"])
def test_a_missing_extra_says_how_to_install_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module, *rest: None if module == name else find_spec(module, *rest)
    )
    with pytest.raises(MissingExtraError, match=rf"pip install 'lorabench\[{name}\]'") as caught:
        make_trackers(["wandb", name], tmp_path)
    assert caught.value.exit_code == 1


def test_no_tracker_still_writes_the_metrics(tracked_run: TrackedRun, record: RunRecord, tmp_path: Path) -> None:
    with make_trackers("none", tmp_path) as group:
        _drive(group, tracked_run, record)
    assert _num_lines(tracked_run) == 21
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_secrets_are_blotted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2hunter2")
    text = "401 at https://user:pass@api.example/graphql with hunter2hunter2 and " + "ab12" * 10
    assert without_anything_key_like(text) == "401 at https://***@api.example/graphql with *** and ***"
    assert plain_reason(OSError(28, "No space left on device", "/x/y")) == "No space left on device: /x/y"
    assert plain_reason(ValueError("a\x1b[31mb\nTraceback")) == "a [31mb"


def test_configuration_and_tags_use_the_tables_names(tracked_run: TrackedRun) -> None:
    config = run_config(tracked_run)
    assert config["model"] == "tiny-model"
    assert (config["rank"], config["alpha"], config["learning_rate"], config["seed"]) == (8, 16.0, 1e-3, 3)
    assert config["evaluation.times"] == 4
    assert config["num_cores"] == 2
    assert run_tags(tracked_run, "completed") == ("tiny-model", "news", "lora", "first-look", "rank-8", "completed")


def test_final_figures_are_those_of_the_results_table(record: RunRecord) -> None:
    row = csv_rows([record])[0]
    figures = final_values(record)
    assert figures.pop("gain") == pytest.approx(row["val_bits_per_byte"] / row["base_val_bits_per_byte"] - 1)
    assert {name: row[name] for name in figures} == figures
    assert {"test_bits_per_byte", "val_word_perplexity", "peak_memory_mb", "adapter_mb", "status"} <= set(figures)
