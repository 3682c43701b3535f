"""Weights that are held in four or eight bits: made whole for each product, and let go of after it."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor, nn

from lorabench.fast.float8 import Float8Linear


class FourBitWeight:
    """The weight of a `Linear4bit`, which `dense` gives as it stands for, in the type that it was quantised from."""

    def __init__(self, module: Any) -> None:
        self._weight = module.weight

    def dense(self) -> Tensor:
        """[in, out], a view of memory that nobody else keeps."""
        from bitsandbytes.functional import dequantize_4bit

        whole: Tensor = dequantize_4bit(self._weight.data, self._weight.quant_state)
        return whole.t()


class Float8Weight:
    """The weight of a `Float8Linear`, which `dense` gives as it stands for, in the type that it was made from."""

    def __init__(self, module: Float8Linear) -> None:
        self._module = module

    def dense(self) -> Tensor:
        """[in, out], a view of memory that nobody else keeps."""
        return self._module.weight.t()


HeldWeight = FourBitWeight | Float8Weight


def four_bit_types() -> tuple[frozenset[type], frozenset[type]]:
    """Of layers, and of PEFT's LoRA on them; empty in a process that has no use for them."""
    if "bitsandbytes" not in sys.modules:
        return frozenset(), frozenset()
    from bitsandbytes.nn import Linear4bit
    from peft.tuners.lora import bnb

    return frozenset({Linear4bit}), frozenset({bnb.Linear4bit})


def is_packed(module: nn.Module) -> bool:
    """Whether a four-bit layer may have packed its weights for the processor, so that they cannot be made whole."""
    return bool(getattr(module, "support_avx512bf16_for_cpu", False))
