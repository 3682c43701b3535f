"""LoHa (Hyeon-Woo et al. 2022): the elementwise product of two products of low rank, so that ranks multiply."""

from __future__ import annotations

from typing import Any

from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings


class Loha(OnLinears):
    """Two pairs of factors."""

    matrix_bytes = (8, 72)
    unused_settings = frozenset({"dropout"})
    takes_transposed = False

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """Twice LoRA's."""
        return 2 * settings.rank * (inputs + outputs)

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's LoHaConfig."""
        from peft import LoHaConfig

        return LoHaConfig(r=settings.rank, alpha=settings.alpha_value, target_modules=targets, task_type="CAUSAL_LM")


METHOD = Loha()
