"""Training in float16 with a scaled loss, on a processor: near float32, steps that overflow, and kills."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lorabench.core.cards import CARDS
from lorabench.core.device import Device
from lorabench.core.errors import CancelledError, DivergedError
from lorabench.experiment.schema import TrainingSettings
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import Precision, load_base
from lorabench.training.checkpoints import Checkpoints, Position
from lorabench.training.loop import Course, Hooks, TrainingText, train
from tests.training.test_loop import Run
from tests.training.tiny import TinyAdapter

TinyModel = Callable[[str], Path]
pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = TrainingSettings(learning_rate=3e-3, batch_size=4, context_length=24)


def text(vocabulary: int) -> TrainingText:
    generator = np.random.default_rng(0)
    return TrainingText([generator.integers(2, min(vocabulary, 12), 23).astype(np.int32) for _ in range(48)], prefix=1)


class Training:
    """A tiny model of a real architecture in one precision, trained by the real loop."""

    def __init__(self, folder: Path, checkpoints: Path, precision: Precision = "fp16", method: str = "lora") -> None:
        self.base = load_base(folder, precision=precision, device="cpu")
        self.adapter = attach(self.base, AdapterSettings(method=method, rank=4), seed=3)
        self.checkpoints = checkpoints
        self.steps: list[dict[str, Any]] = []
        self.weights = [self._bytes()]

    def _bytes(self) -> bytes:
        return b"".join(parameter.detach().numpy().tobytes() for parameter in self.adapter.parameters)

    @property
    def losses(self) -> list[float]:
        return [step["loss"] for step in self.steps]

    @property
    def scales(self) -> list[float]:
        return [step["loss_scale"] for step in self.steps]

    def go(self, stop_after: int | None = None) -> Position:
        def on_step(values: dict[str, Any]) -> None:
            self.steps.append(values)
            self.weights.append(self._bytes())

        words = text(self.base.vocabulary_size)
        return train(
            self.base,
            self.adapter,
            words,
            Course.of(words, SETTINGS, seed=1, micro_batch_size=2, num_evaluations=1),
            Checkpoints(self.checkpoints, "this run", seconds=1000.0, num_recorded_steps=10**9),
            Hooks(
                on_step=on_step,
                evaluate=lambda: ({}, 0),
                on_evaluation=lambda values: None,
                on_start=lambda position, problems: None,
                on_checkpoint=lambda: None,
                should_stop=lambda: stop_after is not None and self.steps[-1]["step"] >= stop_after,
            ),
        )


@pytest.mark.parametrize(
    ("family", "method", "path"),
    [
        ("gpt2", "lora", "fast"),
        ("smollm2", "lora", "fast"),
        ("pythia", "dora", "fast"),
        ("pythia", "lora", "reference"),
        ("gpt2", "full", "reference"),
    ],
)
def test_losses_are_near_float32(tiny_model: TinyModel, tmp_path: Path, family: str, method: str, path: str) -> None:
    half = Training(tiny_model(family), tmp_path / "half", "fp16", method)
    whole = Training(tiny_model(family), tmp_path / "whole", "fp32", method)
    if path == "reference":
        half.base.use_reference_path("the test asks for it")
    assert half.base.execution.kind == path
    assert {parameter.dtype for parameter in half.adapter.parameters} == {torch.float32}
    if method != "full":
        assert half.base.model.get_input_embeddings().weight.dtype == torch.float16
    position = half.go()
    whole.go()
    assert half.losses == pytest.approx(whole.losses, rel=5e-3)
    assert half.losses != whole.losses
    assert min(half.losses[-3:]) < half.losses[0]
    assert position.num_skipped_steps == len([step for step in half.steps if not np.isfinite(step["gradient_norm"])])
    assert "loss_scale" not in whole.steps[0]


def test_a_step_that_overflows_is_skipped_and_halves_the_scale(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorabench.training.optimization.INITIAL_SCALE", 2.0**30)
    training = Training(tiny_model("gpt2"), tmp_path)
    position = training.go()
    skipped = [not np.isfinite(step["gradient_norm"]) for step in training.steps]
    assert 1 < position.num_skipped_steps == sum(skipped) < len(skipped)
    for index, was_skipped in enumerate(skipped):
        assert (training.weights[index] == training.weights[index + 1]) == was_skipped
        if index:
            assert training.scales[index] == training.scales[index - 1] * (0.5 if skipped[index - 1] else 1.0)
    assert training.scales[0] == 2.0**30
    assert all(np.isfinite(training.losses))


@pytest.mark.parametrize("stop_after", [2, 9])
def test_a_run_taken_up_again_is_the_run_that_was_never_stopped(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """Whether it is stopped while steps are skipped or when they no longer are."""
    monkeypatch.setattr("lorabench.training.optimization.INITIAL_SCALE", 2.0**26)
    whole = Training(tiny_model("smollm2"), tmp_path / "whole")
    wanted = whole.go()
    first = Training(tiny_model("smollm2"), tmp_path / "parts")
    with pytest.raises(CancelledError):
        first.go(stop_after)
    second = Training(tiny_model("smollm2"), tmp_path / "parts")
    position = second.go()
    assert first.losses + second.losses == whole.losses
    assert first.scales + second.scales == whole.scales
    assert second.weights[-1] == whole.weights[-1]
    assert position.num_skipped_steps == wanted.num_skipped_steps > 0
    assert position.loss_scale == wanted.loss_scale


def test_gradients_that_overflow_at_any_scale_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(TinyAdapter):
        def __init__(self) -> None:
            super().__init__()
            self.down.register_hook(lambda gradient: gradient + torch.inf)

    monkeypatch.setattr("lorabench.training.optimization.INITIAL_SCALE", 4.0)
    run = Run(tmp_path, adapter=Broken)
    run.base.precision = "fp16"
    with pytest.raises(DivergedError, match="the gradient"):
        run.go()
    assert list(run.losses) == [1, 2], "at scales 4 and 2, which leaves 1"


def test_auto_is_float16_on_cards_without_bfloat16_units() -> None:
    assert CARDS["T4"].device.precision == "fp16"
    assert CARDS["H100"].device.precision == "bf16"
    assert Device("cpu", "a processor", 1, supports_bf16=False).precision == "fp32"
    assert Device("mps", "Apple's", 1, supports_bf16=False).precision == "fp32"
