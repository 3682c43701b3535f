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
        5.981885, 6.012895, 5.999095, 5.972351, 6.002548, 5.989428,
        5.997401, 5.98634, 5.990318, 6.010583, 6.007659, 5.986428,
    ],
    "pythia": [
        6.106926, 6.133446, 6.128177, 6.092505, 6.100981, 6.108758,
        6.090778, 6.057032, 6.071053, 6.054253, 6.094924, 6.085138,
    ],
    "gemma": [
        6.253999, 6.229209, 6.249319, 6.247243, 6.234705, 6.227828,
        6.240726, 6.229311, 6.224059, 6.224098, 6.228204, 6.228158,
    ],
    "smollm2": [
        5.961976, 5.98471, 5.988165, 5.988485, 5.966463, 5.977775,
        5.974544, 5.964558, 5.927723, 5.974889, 5.940884, 5.938414,
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
