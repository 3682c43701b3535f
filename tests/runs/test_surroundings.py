"""Disks that fill up, folders that vanish, limits and busy locks: a sentence, and the same command goes on."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lorabench
from lorabench.core.errors import DiskError, DownloadError, InputError, ModelError, is_environment_problem
from lorabench.models.base import FrozenBase
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import load_records
from lorabench.tokens.packing import PackedBatch
from tests.marks import remount, slow
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_survival import finish, start, wait_for

ADAPTER = "adapter/adapter_model.safetensors"


def at_loss(monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], object]) -> None:
    """Something happens just before the loss is computed for the `number`-th time."""
    loss, calls = FrozenBase.loss, iter(range(1, 10**6))

    def disturbed(base: FrozenBase, batch: PackedBatch, *rest: object) -> torch.Tensor:
        if next(calls) == number:
            do()
        return loss(base, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FrozenBase, "loss", disturbed)


def assert_the_same(ours: RunRecord, theirs: RunRecord) -> None:
    assert ours.status is Status.COMPLETED
    assert ours.attempt == 1
    assert ours.validation == theirs.validation
    assert ours.files[ADAPTER] == theirs.files[ADAPTER]


@pytest.mark.parametrize("gone", ["the run's folder", "the whole output"])
@pytest.mark.parametrize("checkpoint_seconds", [0.0, slow(60.0)])
def test_a_folder_that_vanishes_is_told_and_the_same_command_does_the_run_again(
    experiment: ExperimentWriter,
    tmp_path: Path,
    finished: RunRecord,
    monkeypatch: pytest.MonkeyPatch,
    gone: str,
    checkpoint_seconds: float,
) -> None:
    path, out = experiment(adapter={"rank": 2}), tmp_path / "vanishing"
    folder = out if gone == "the whole output" else out / "runs" / finished.run_id
    at_loss(monkeypatch, 5, lambda: shutil.rmtree(folder))
    outcome = lorabench.run(path, out, trackers=["none"], checkpoint_seconds=checkpoint_seconds)
    assert outcome.exit_code == 1
    (record,) = outcome.records
    assert (record.status, record.environment_failed) == (Status.FAILED, True)
    assert "metrics.jsonl vanished while the run wrote to it; give the same command again" in str(record.status_reason)
    monkeypatch.undo()
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "cache"))
    (record,) = lorabench.run(path, out, trackers=["none"]).records
    assert_the_same(record, finished)


@pytest.mark.slow
@pytest.mark.parametrize("most_bytes", [3_000, 60_000])
def test_a_limit_on_files_is_told_and_the_same_command_goes_on_without_it(
    experiment: ExperimentWriter, tmp_path: Path, finished: RunRecord, most_bytes: int
) -> None:
    path, out = experiment(adapter={"rank": 2}), tmp_path / "limited"
    command = [sys.executable, "-m", "lorabench", "run", str(path), "--output-dir", str(out), "--tracker", "none"]
    limited = subprocess.run(
        [*command, "--checkpoint-seconds", "0"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY)),
    )
    said = limited.stdout + limited.stderr
    assert limited.returncode == 1, said
    assert "File too large" in said
    assert "Traceback" not in said
    whole = subprocess.run(command, capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stderr
    (record,) = load_records(out)
    assert_the_same(record, finished)


@pytest.mark.parametrize("small_disk", ["size=20m"], indirect=True)
def test_a_disk_that_fills_up_and_then_can_only_be_read(
    experiment: ExperimentWriter, small_disk: Path, finished: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = experiment(adapter={"rank": 2}), small_disk / "out"
    at_loss(monkeypatch, 5, lambda: (small_disk / "others").write_bytes(bytes(shutil.disk_usage(small_disk).free)))
    with pytest.raises(DiskError, match="No space left on device; free some space and give the same command again"):
        lorabench.run(path, out, trackers=["none"], checkpoint_seconds=0.0)
    remount(small_disk, "ro")
    with pytest.raises(DiskError, match="Read-only file system"):
        lorabench.run(path, out, trackers=["none"])
    remount(small_disk, "rw")
    (small_disk / "others").unlink()
    (record,) = lorabench.run(path, out, trackers=["none"]).records
    assert_the_same(record, finished)
    assert record.num_resumed == 1, "it went on from its checkpoint"


def test_what_counts_as_surroundings() -> None:
    def chained() -> BaseException:
        try:
            raise RuntimeError("cannot save") from OSError(28, "No space left on device")
        except RuntimeError as error:
            return error

    assert is_environment_problem(chained())
    assert is_environment_problem(DiskError("full"))
    assert is_environment_problem(DownloadError("no network"))
    assert is_environment_problem(RuntimeError("Error while serializing: I/O error: File too large (os error 27)"))
    assert is_environment_problem(FileNotFoundError(2, "No such file or directory", "x"))
    assert not is_environment_problem(RuntimeError("shapes differ"))
    assert not is_environment_problem(InputError("wrong"))
    wrong = ModelError("cannot be loaded")
    wrong.__cause__ = OSError(5, "Input/output error")
    assert not is_environment_problem(wrong), "what we call a wrong input is one"


HOLD = """
import sys, time, pathlib
from lorabench.core.locks import exclusively
with exclusively(pathlib.Path(sys.argv[1]) / "benchmark_results.csv"):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("end", ["the holder goes", "Ctrl-C"])
def test_runs_do_not_wait_for_who_holds_the_results(experiment: ExperimentWriter, tmp_path: Path, end: str) -> None:
    path, out = experiment(adapter={"rank": [2, 4, 8]}), tmp_path / "out"
    command = [sys.executable, "-c", HOLD, str(out / "results")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        process = start(path, out)
        assert wait_for(process, f"waiting for process {holder.pid}, which is working on".encode(), 200)
        assert [record.status for record in load_records(out)] == [Status.COMPLETED] * 3
        if end == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            holder.kill()
        output = finish(process)
        holder.kill()
    assert "Traceback" not in output
    if end == "Ctrl-C":
        assert process.returncode == 1
        assert "every run is kept, and lorabench report" in output
        again = subprocess.run(
            [sys.executable, "-m", "lorabench", "report", str(out)], check=False, capture_output=True
        )
        assert again.returncode == 0
    else:
        assert process.returncode == 0
    rows = (out / "results" / "benchmark_results.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 4


@pytest.mark.slow
def test_a_busy_table_is_rebuilt_later(
    experiment: ExperimentWriter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = experiment(adapter={"rank": [2, 4]}), tmp_path / "out"
    command = [sys.executable, "-c", HOLD, str(out / "results")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        process = start(path, out)
        assert wait_for(process, b"table and page are rebuilt later: process", 200)
        holder.kill()
        output = finish(process)
    assert process.returncode == 0, output
    assert output.count("rebuilt later") == 0, "once is enough"
    assert "2 of 2 runs completed" in output
    rows = (out / "results" / "benchmark_results.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3
