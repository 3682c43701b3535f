"""Losses that must not change: a refactor leaves them alone, and what changes them changes the meaning of numbers.

They hold on every machine to a few parts in a hundred thousand: what differs there is the order of additions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorabench.adapters.attach import attach
from lorabench.config import AdapterSettings, TrainingSettings
from lorabench.models.base import load_base
from lorabench.train.loop import Hooks, TrainingText, train

# fmt: off
GOLDEN = {
    "gpt2": [
        5.981885, 6.007444, 5.995916, 5.987673, 5.983677, 6.009664,
        5.971864, 5.981561, 5.989499, 5.974933, 5.980549, 5.997682,
    ],
    "pythia": [
        6.106926, 6.137445, 6.096306, 6.090166, 6.097522, 6.101189,
        6.090307, 6.081805, 6.108889, 6.076481, 6.108097, 6.076352,
    ],
    "gemma": [
        6.253999, 6.231446, 6.250083, 6.246834, 6.239026, 6.24869,
        6.241664, 6.218373, 6.228551, 6.22261, 6.220165, 6.219981,
    ],
    "smollm2": [
        5.961976, 5.988289, 6.009164, 5.997443, 5.964096, 5.960997,
        5.97217, 5.968024, 5.931212, 5.967036, 5.951869, 5.949286,
    ],
}
# fmt: on
TOLERANCE = 5e-5


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
        learning_rate=0.1, batch_size=3, context_length=16, epochs=2, precision="fp32", warmup_ratio=0.2
    )
    train(
        base,
        attach(base, AdapterSettings(rank=4, alpha="2r", dropout=0.1), seed=0),
        text,
        settings,
        seed=0,
        micro_batch_size=2,
        evaluation_times=1,
        checkpoint_folder=checkpoints,
        checkpoint_key="golden",
        checkpoint_seconds=1e9,
        num_recorded_steps=0,
        hooks=Hooks(
            on_step=lambda values: seen.append(values["loss"]),
            evaluate=lambda: ({}, 0),
            on_evaluation=lambda values: None,
            on_start=lambda position, problems: None,
            on_checkpoint=lambda: None,
            should_stop=lambda: False,
        ),
    )
    return seen


@pytest.mark.parametrize("family", ["gpt2", "pythia", "gemma", "smollm2"])
def test_the_losses_are_those_they_were(tiny_model: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    assert losses(tiny_model(family), tmp_path) == pytest.approx(GOLDEN[family], rel=TOLERANCE)
