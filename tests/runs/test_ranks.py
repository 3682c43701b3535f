"""One run on two devices, started by one command: killed, stopped and gone on with, against the run on one device."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import lorabench
from lorabench.core.errors import ConfigError, InputError
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import load_records
from lorabench.trackers.jsonl import METRICS_NAME
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_survival import finish, start

TRAINING = {
    "learning_rate": 0.005,
    "batch_size": 4,
    "context_length": 32,
    "train_bytes": 6000,
    "precision": "fp32",
    "epochs": 8,
}


@pytest.fixture
def shared(experiment: ExperimentWriter) -> Callable[[int], Path]:
    """The experiment of one run with dropout, on so many devices."""

    def write(num_devices: int) -> Path:
        training = TRAINING if num_devices == 1 else {**TRAINING, "devices": num_devices}
        return experiment(adapter={"rank": 2, "dropout": 0.1}, training=training)

    return write


def only_record(out: Path) -> RunRecord:
    (record,) = load_records(out)
    return record


def losses(out: Path) -> dict[int, float]:
    import json

    (path,) = out.glob(f"runs/*/{METRICS_NAME}")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "step"}


def pid_of_rank(command: subprocess.Popen[bytes], rank: int) -> int:
    """The process of a rank that the command has started."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = next(line for line in status.read_text().splitlines() if line.startswith("PPid:")).split()[1]
            environment = (status.parent / "environ").read_bytes().split(b"\0")
        except (OSError, StopIteration):
            continue
        if int(parent) == command.pid and f"LOCAL_RANK={rank}".encode() in environment:
            return int(status.parent.name)
    raise AssertionError(f"there is no process of rank {rank}")


def assert_same_run(alone: Path, shared: Path) -> None:
    """The same id, losses and scores; and the record says on how many devices it was done."""
    one, two = only_record(alone), only_record(shared)
    assert (one.run_id, one.status, two.status) == (two.run_id, Status.COMPLETED, Status.COMPLETED)
    assert (one.environment.num_devices, two.environment.num_devices) == (1, 2)
    assert losses(shared) == pytest.approx(losses(alone), rel=1e-6)
    assert one.test is not None
    assert two.test is not None
    assert two.test.negative_log_likelihood == pytest.approx(one.test.negative_log_likelihood, rel=1e-6)
    assert two.budget is not None
    assert (two.budget.micro_batch_size, two.budget.accumulation_steps) == (2, 1)


def disturb(path: Path, out: Path, how: Callable[[subprocess.Popen[bytes]], None]) -> tuple[str, RunRecord]:
    """Start the command, and do that to it when it has trained further; returns what it said, and the record."""
    before = latest_checkpoint(out)
    command = start(path, out, "--checkpoint-seconds", "0")
    deadline = time.monotonic() + 300
    while latest_checkpoint(out) < before + 3:
        assert command.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    how(command)
    disturbed_at = time.monotonic()
    said = finish(command)
    assert time.monotonic() - disturbed_at < 60
    assert command.returncode == 1
    return " ".join(said.split()), only_record(out)


def kill_rank(rank: int, command: subprocess.Popen[bytes]) -> None:
    os.kill(pid_of_rank(command, rank), signal.SIGKILL)


def latest_checkpoint(out: Path) -> int:
    return max((int(path.name[5:]) for path in out.glob("runs/*/checkpoints/step-*")), default=0)


@pytest.mark.slow
def test_a_run_that_is_disturbed_in_every_way(shared: Callable[[int], Path], tmp_path: Path) -> None:
    """Either rank is killed, and the command is stopped; then it goes on to where one device gets undisturbed."""
    assert lorabench.run(shared(1), tmp_path / "alone", trackers=["none"]).exit_code == 0
    path, out = shared(2), tmp_path / "out"
    for rank in (1, 0):
        said, record = disturb(path, out, partial(kill_rank, rank))
        assert f"the process of rank {rank} of 2 was ended by SIGKILL; the same command goes on" in said
        assert (record.status, record.goes_on, record.environment.num_devices) == (Status.FAILED, True, 2)
    said, record = disturb(path, out, lambda command: command.send_signal(signal.SIGINT))
    assert "stopped after step" in said
    assert record.status is Status.CANCELLED
    again = start(path, out)
    assert "going on after step" in finish(again)
    assert again.returncode == 0
    assert only_record(out).num_resumed == 3
    assert_same_run(tmp_path / "alone", out)


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"devices": [1, 2]}, "training.devices: a list is not accepted"),
        ({"devices": 0}, "training.devices: 0 is not accepted"),
        ({"devices": "auto"}, "training.devices: 'auto' is not accepted"),
        ({"devices": 5}, "training.devices: 5 is not accepted; the rows of a batch are shared, and the smallest"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    experiment: ExperimentWriter, training: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        lorabench.plan(experiment(training={**TRAINING, **training}))


def test_the_number_of_devices_is_no_part_of_a_run(shared: Callable[[int], Path]) -> None:
    (one,), (two,) = lorabench.plan(shared(1)).runs, lorabench.plan(shared(2)).runs
    assert one.run_id == two.run_id
    assert one.spec == two.spec


def test_gpus_that_are_not_there_are_named() -> None:
    from lorabench.core.device import Device
    from lorabench.runs.launching import check_devices

    check_devices(Device("cpu", "a processor", 1, False), 4)
    with pytest.raises(InputError, match="leave one of them out"):
        check_devices(Device("cpu", "a processor", 1, False), 4, is_worker=True)
    with pytest.raises(InputError, match="takes the first 2 GPUs, not cuda:1"):
        check_devices(Device("cuda", "a card", 1, True, 1), 2)
    with pytest.raises(InputError, match=r"devices: 99 is not accepted: torch finds"):
        check_devices(Device("cuda", "a card", 1, True), 99)
    with pytest.raises(InputError, match="there is one Apple GPU"):
        check_devices(Device("mps", "a Mac", 1, False), 2)
