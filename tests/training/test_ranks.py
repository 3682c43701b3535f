"""Two processes that share the rows of every step, against one: the same losses, failures and checkpoints."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lorabench.core.errors import CancelledError
from tests.training.rank_cases import LONG, STOP_AFTER, Unused
from tests.training.test_loop import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs lie; one of them was stopped as a single process, and two go on with it."""
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.raises(CancelledError):
        Run(folder / "by-one").go(stop_after=STOP_AFTER)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """What rank 0 of two saw, by case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    addresses = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.rank_cases", str(folder)],
            env={**os.environ, **addresses, "RANK": str(rank)},
            stdout=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    values: dict[str, Any] = json.loads(outputs[0])
    return values


def losses_of(case: dict[str, Any]) -> dict[int, float]:
    return {int(step): loss for step, loss in case["losses"].items()}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_losses_are_those_of_one_process(found: dict[str, Any], tmp_path: Path, dropout: float) -> None:
    alone = Run(tmp_path, dropout, settings=LONG)
    alone.go()
    shared = losses_of(found[f"long {dropout}"])
    assert len(shared) > 50
    assert shared == pytest.approx(alone.losses, rel=1e-6)
    for ours, (_, parameter) in zip(found[f"long {dropout}"]["weights"], alone.adapter.named_parameters(), strict=True):
        for row, wanted in zip(ours, parameter.tolist(), strict=True):
            assert row == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_a_parameter_without_a_gradient_stays_as_it_is(found: dict[str, Any], tmp_path: Path) -> None:
    """AdamW takes its weight decay only where there is a gradient, of zeros too."""
    alone = Run(tmp_path, adapter=Unused)
    alone.go()
    assert found["unused"]["weights"][2] == [1.0, 1.0, 1.0]
    assert losses_of(found["unused"]) == pytest.approx(alone.losses, rel=1e-6)


def test_two_go_on_where_one_stopped(found: dict[str, Any], tmp_path: Path) -> None:
    whole = Run(tmp_path)
    whole.go()
    assert found["taken up"]["resumed_after"] == STOP_AFTER
    rest = {step: loss for step, loss in whole.losses.items() if step > STOP_AFTER}
    assert losses_of(found["taken up"]) == pytest.approx(rest, rel=1e-5)


def test_one_goes_on_where_two_stopped(found: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    assert found["stopped"]["error"].startswith(f"CancelledError: stopped after step {STOP_AFTER} of")
    whole, rest = Run(tmp_path), Run(folder / "stopped")
    whole.go()
    rest.go()
    assert rest.resumed_after == STOP_AFTER
    assert losses_of(found["stopped"]) | rest.losses == pytest.approx(whole.losses, rel=1e-5)


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("memory 0", "MemoryError: full"),
        ("memory 1", "OtherRankMemoryError: memory ran out on rank 1 of 2"),
        ("failure 0", "ValueError: a strange thing"),
        ("failure 1", "OtherRankError: rank 1 of 2: a strange thing"),
    ],
)
def test_what_ends_one_ends_all(found: dict[str, Any], case: str, error: str) -> None:
    assert found[case]["error"] == error
    assert list(losses_of(found[case])) == [1, 2]
