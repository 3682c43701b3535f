"""How many steps a run has and when it is evaluated: arithmetic that planning and training share."""

from __future__ import annotations

import math

from lorabench.experiment.schema import TrainingSettings


def num_steps(rows: int, settings: TrainingSettings) -> int:
    """Optimizer steps for `rows` rows an epoch."""
    return settings.epochs * math.ceil(rows / settings.batch_size)


def evaluation_steps(steps: int, times: int) -> list[int]:
    """The steps after which validation is scored: evenly spread, the last step always among them."""
    return sorted({max(1, round(steps * index / times)) for index in range(1, times + 1)})
