"""HRA (Yuan et al. 2024): each layer's input is reflected by a chain of trained Householder reflections."""

from __future__ import annotations

from typing import Any

from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings


class Hra(OnLinears):
    """As many reflections as the rank, in pairs that cancel one another at the start."""

    unused_settings = frozenset({"alpha", "dropout"})
    takes_transposed = False

    def problem_with(self, settings: AdapterSettings, inputs: int, outputs: int) -> str:
        """Pairs of reflections, within the space that they reflect."""
        if settings.rank % 2:
            return f"rank {settings.rank} is odd, and reflections come in pairs"
        return f"rank {settings.rank} is more than the layer's inputs" if settings.rank > inputs else ""

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """A direction for each reflection."""
        return settings.rank * inputs

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's HRAConfig."""
        from peft import HRAConfig

        return HRAConfig(r=settings.rank, target_modules=targets, task_type="CAUSAL_LM")


METHOD = Hra()
