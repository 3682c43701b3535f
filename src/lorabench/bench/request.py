"""What a user may ask of `lorabench bench`, checked before anything heavy is imported or loaded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from lorabench.core.device import Device, choose_device
from lorabench.core.errors import InputError
from lorabench.methods.registry import method_of
from lorabench.methods.settings import AdapterSettings
from lorabench.models.planning import plan_model

PRECISIONS = ("fp32", "bf16", "fp16")
TABLE_CONTEXTS = (128, 512, 1024)
TABLE_BATCHES = (1, 2)


@dataclass(frozen=True)
class Point:
    """One setting to measure."""

    rank: int = 16
    context_length: int = 512
    batch_size: int = 2
    num_steps: int = 10
    """Timed steps; the warm-up comes on top."""


DEFAULT = Point()


@dataclass(frozen=True)
class Request:
    """What was asked for; None where lorabench chooses."""

    model: str
    precision: str | None = None
    rank: int = DEFAULT.rank
    context_length: int | None = None
    batch_size: int | None = None
    num_steps: int = DEFAULT.num_steps
    random_weights: bool = False
    table: bool = False
    profile: bool = False
    device: Device = field(default_factory=choose_device)

    def check(self) -> None:
        """Raise InputError for what cannot be measured."""
        if not (self.precisions and self.points):
            raise AssertionError("nothing to measure")

    @property
    def precisions(self) -> list[str]:
        """What was asked for; else what the hardware has, both in a table. Raises InputError."""
        if self.precision is not None:
            if self.precision not in PRECISIONS:
                raise InputError(f"--precision {self.precision}: not accepted; accepted: {', '.join(PRECISIONS)}")
            return [self.precision]
        usual = self.device.precision
        return [usual, "fp32"] if self.table and usual != "fp32" else [usual]

    @property
    def points(self) -> list[Point]:
        """Every setting to measure, the first one for the headline. Raises InputError where the model cannot do it."""
        plan = plan_model(self.model)
        longest = plan.shape.max_context_length
        if self.context_length is not None and self.context_length > longest:
            raise InputError(
                f"--context-length {self.context_length}: more than {plan.name} can read; at most {longest}"
            )
        settings = AdapterSettings(rank=self.rank)
        method_of(settings).resolve_targets(plan.shape, settings)
        contexts, batches = [min(DEFAULT.context_length, longest)], [DEFAULT.batch_size]
        if self.table:
            contexts += [length for length in TABLE_CONTEXTS if length not in contexts and length <= longest]
            batches += [size for size in TABLE_BATCHES if size not in batches]
        contexts = contexts if self.context_length is None else [self.context_length]
        batches = batches if self.batch_size is None else [self.batch_size]
        return [Point(self.rank, length, size, self.num_steps) for length, size in itertools.product(contexts, batches)]
