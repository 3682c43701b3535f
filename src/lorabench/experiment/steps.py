"""How many steps a run has, how large they are and when it is evaluated: what planning and training share."""

from __future__ import annotations

import math

from lorabench.core.device import Device
from lorabench.experiment.schema import TrainingSettings


def num_steps(rows: int, settings: TrainingSettings) -> int:
    """Optimizer steps for `rows` rows an epoch."""
    return settings.epochs * math.ceil(rows / settings.batch_size)


def evaluation_steps(steps: int, times: int) -> list[int]:
    """The steps after which validation is scored: evenly spread, the last step always among them."""
    return sorted({step_at(steps, index / times) for index in range(1, times + 1)})


def step_at(steps: int, share: float) -> int:
    """The step at which a share of a run is done; at least the first one."""
    return max(1, round(steps * share))


def num_warmup_steps(steps: int, settings: TrainingSettings) -> int:
    """Steps over which the learning rate rises."""
    return round(settings.warmup_ratio * steps)


def num_decay_steps(steps: int, settings: TrainingSettings) -> int:
    """The last steps of a run, over which the learning rate falls: of cosine and linear all of them."""
    if settings.schedule == "constant":
        return 0
    return max(1, round(settings.decay_ratio * steps)) if settings.schedule == "wsd" else steps


def num_shared_steps(steps: int, num_warmup: int, settings: TrainingSettings) -> int:
    """Of a run of so many steps the first ones, which longer runs with this warm-up begin with; the last never counts.

    Of cosine and linear none: they fall from the beginning, and the slower the longer a run is.
    """
    if settings.schedule in ("cosine", "linear"):
        return 0
    return min(steps - 1, max(num_warmup, steps - num_decay_steps(steps, settings)))


def micro_batch_size(settings: TrainingSettings, device: Device) -> int:
    """Rows computed at once: those that the settings ask for, else what suits the device; at most a batch."""
    asked = settings.micro_batch_size or device.micro_batch(settings.batch_size, settings.context_length)
    return min(asked, settings.batch_size)
