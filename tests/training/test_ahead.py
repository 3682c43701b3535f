"""What a step depends on is on its way to the device before the loop waits for the step before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lorabench.core import device
from lorabench.fast import forward
from lorabench.training import loop
from tests.training.test_fp16 import Training
from tests.training.test_loop import Run

pytestmark = pytest.mark.usefixtures("one_thread")


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each wait of the loop."""
    calls: list[str] = []

    def read(numbers: Sequence[Tensor]) -> list[float]:
        calls.append("wait")
        return device.read(numbers)

    monkeypatch.setattr(loop, "read", read)
    return calls


def noting(calls: list[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*values: Any, **options: Any) -> Any:
        calls.append(name)
        return function(*values, **options)

    return noted


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_a_batch_is_sent_before_the_wait_for_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batch_size: int
) -> None:
    calls = recorded(monkeypatch)
    run = Run(tmp_path)
    for name in ("send", "loss", "synchronize"):
        monkeypatch.setattr(run.base, name, noting(calls, name, getattr(run.base, name)))
    run.go(micro_batch_size=micro_batch_size, until_step=3)
    parts = 4 // micro_batch_size
    step = ["loss", "send"] * parts + ["wait"]
    assert calls == ["send", *step, *step, *step[:-2], "wait"], "one wait a step, and nothing is sent that is not used"


def test_the_fast_path_uploads_each_batch_once_and_ahead(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded(monkeypatch)
    training = Training(tiny_model("smollm2"), tmp_path, "fp32")
    monkeypatch.setattr(forward, "upload", noting(calls, "upload", forward.upload))
    training.go()
    num_steps = len(training.steps)
    assert calls[:4] == ["upload", "upload", "upload", "wait"], "two parts a step, and the first of the next one"
    assert calls[-2:] == ["wait", "wait"], "the last step has one part, which was sent ahead"
    assert (calls.count("upload"), calls.count("wait")) == (2 * num_steps - 1, num_steps)
