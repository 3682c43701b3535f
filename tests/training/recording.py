"""What a training loop calls, where only its losses are looked at."""

from __future__ import annotations

from lorabench.training.loop import Hooks


def recording_losses(seen: list[float]) -> Hooks:
    """Keeps each step's loss; nothing is scored, kept or stopped."""
    return Hooks(
        on_step=lambda values: seen.append(values["loss"]),
        evaluate=lambda: ({}, 0),
        on_evaluation=lambda values: None,
        on_start=lambda position, problems: None,
        on_checkpoint=lambda: None,
        should_stop=lambda: False,
    )
