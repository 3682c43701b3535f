"""LoKr (Yeh et al. 2023): the Kronecker product of a small matrix and one of low rank."""

from __future__ import annotations

import math
from typing import Any

from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings


class Lokr(OnLinears):
    """A small whole matrix times one of low rank, or a whole one where that is no larger."""

    matrix_bytes = (8, 72)
    unused_settings = frozenset({"dropout"})
    takes_transposed = False

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """Both factors; the larger one is whole from half its side on."""
        (small_in, large_in), (small_out, large_out) = _sides(inputs), _sides(outputs)
        whole = settings.rank >= max(large_in, large_out) / 2
        large = large_in * large_out if whole else settings.rank * (large_in + large_out)
        return small_in * small_out + large

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's LoKrConfig."""
        from peft import LoKrConfig

        return LoKrConfig(r=settings.rank, alpha=settings.alpha_value, target_modules=targets, task_type="CAUSAL_LM")


def _sides(size: int) -> tuple[int, int]:
    """The two whole numbers nearest to one another whose product is `size`, the smaller one first."""
    small = next(side for side in range(math.isqrt(size), 0, -1) if size % side == 0)
    return small, size // small


METHOD = Lokr()
