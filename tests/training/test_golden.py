"""Losses that must not change: a refactor leaves them alone, and what changes them changes the meaning of numbers.

They hold on every machine to a few parts in a hundred thousand: what differs there is the order of additions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorabench.experiment.schema import TrainingSettings
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import load_base
from lorabench.training.checkpoints import Checkpoints
from lorabench.training.loop import Course, TrainingText, train
from tests.training.recording import recording_losses

# fmt: off
GOLDEN = {
    "gpt2": [
        5.981885, 6.014112, 5.991335, 5.98221, 6.002131, 6.007953,
        5.988483, 5.973599, 5.988738, 5.96051, 5.991476, 5.980291,
    ],
    "pythia": [
        6.106926, 6.132608, 6.128255, 6.089574, 6.103785, 6.11366,
        6.092036, 6.058158, 6.07335, 6.044983, 6.0956, 6.081185,
    ],
    "gemma": [
        6.253999, 6.229067, 6.249741, 6.249904, 6.236082, 6.22806,
        6.23398, 6.222445, 6.218071, 6.209968, 6.208568, 6.201684,
    ],
    "smollm2": [
        5.961976, 5.986039, 5.989355, 5.970881, 5.963514, 5.978434,
        5.956947, 5.967254, 5.9302, 5.96056, 5.945283, 5.943463,
    ],
}
# fmt: on
TOLERANCE = 5e-5
LEARNING_RATE = 0.03
"""Higher rates make rounding visible: Adam enlarges it where a gradient is nearly nothing."""


def losses(folder: Path, checkpoints: Path) -> list[float]:
    """Some steps of the training loop on a tiny model and a fixed text: accumulation, warm-up, clipping, dropout."""
    base = load_base(folder, precision="fp32", device="cpu")
    generator = np.random.default_rng(7)
    size = base.model.config.vocab_size
    text = TrainingText(
        [generator.integers(1, size // 4, length).astype(np.int32) for length in (90, 7, 1, 150, 40)], 0
    )
    seen: list[float] = []
    settings = TrainingSettings(
        learning_rate=LEARNING_RATE, batch_size=3, context_length=16, epochs=2, precision="fp32", warmup_ratio=0.2
    )
    train(
        base,
        attach(base, AdapterSettings(rank=4, alpha="2r", dropout=0.1), seed=0),
        text,
        Course.of(text, settings, seed=0, micro_batch_size=2, num_evaluations=1),
        Checkpoints(checkpoints, "golden", seconds=1e9, num_recorded_steps=0),
        recording_losses(seen),
    )
    return seen


@pytest.mark.parametrize("family", ["gpt2", "pythia", "gemma", "smollm2"])
def test_the_losses_are_those_they_were(tiny_model: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    assert losses(tiny_model(family), tmp_path) == pytest.approx(GOLDEN[family], rel=TOLERANCE)
