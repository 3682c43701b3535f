"""What a run computes, as far as its time and memory depend on it. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lorabench.fast.declarations import FAST_TYPES
from lorabench.methods.registry import method_of
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears

ANSWER_ROWS = 32
"""Answers written at once."""
ANSWER_TOKENS = 8192
"""Of prompts and answers whose keys and values are held at once."""
FAST_QUANTIZATIONS = ("none", "nf4", "nf4-double", "fp8")
"""Ways to hold a base that the fast path covers."""
REFERENCE_SLOWDOWN = {"bf16": 2.5, "fp16": 2.5, "fp32": 1.6}
"""PEFT's and Transformers' own computation, next to the fast path. In fp16: as in bf16, which was measured."""


class PlannedShape(HasLinears, Protocol):
    """What is known of a model before it is loaded."""

    @property
    def vocabulary_size(self) -> int: ...
    @property
    def family(self) -> str: ...


@dataclass(frozen=True)
class Workload:
    """What a run would compute. Tokens are counted over all epochs and all evaluations."""

    context_length: int
    precision: str
    evaluation_tokens: int
    train_tokens: int = 0
    adapter: AdapterSettings | None = None
    target_modules: Sequence[str] = ()
    rows_at_once: int = 1
    checkpointing: bool = False
    """Whether layers are computed once more in the backward pass."""
    optimizer: str = "adamw"
    writes_samples: bool = False
    answers: tuple[int, int] = (0, 0)
    """Completions written greedily, and the most tokens of each."""
    quantization: str = "none"
    sharing: int = 1
    """GPUs that share the rows of a step; processes on one processor are no faster than one."""

    def is_fast(self, shape: PlannedShape) -> bool:
        """Whether the fast path covers it."""
        return (
            shape.family in FAST_TYPES
            and self.quantization in FAST_QUANTIZATIONS
            and (self.adapter is None or method_of(self.adapter).is_fast_with(self.adapter))
        )

    def slowdown(self, shape: PlannedShape) -> float:
        """Next to the fast path."""
        return 1.0 if self.is_fast(shape) else REFERENCE_SLOWDOWN[self.precision]

    @classmethod
    def evaluation_only(
        cls,
        *,
        num_tokens: int,
        context_length: int,
        precision: str,
        quantization: str = "none",
        answers: tuple[int, int] = (0, 0),
    ) -> Workload:
        """Scoring the base, and its answers."""
        return cls(context_length, precision, num_tokens, answers=answers, quantization=quantization)
