"""MiSS (Kang and Yin 2025): the input's pieces are summed and meet one trained matrix of as many rows as the rank."""

from __future__ import annotations

from typing import Any

from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings


class Miss(OnLinears):
    """One matrix for each layer."""

    unused_settings = frozenset({"alpha"})
    takes_transposed = False

    def problem_with(self, settings: AdapterSettings, inputs: int, outputs: int) -> str:
        """The rank is a number of inputs."""
        return f"rank {settings.rank} is to be at most the layer's inputs" if settings.rank > inputs else ""

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """Rank by outputs."""
        return settings.rank * outputs

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's MissConfig."""
        from peft import MissConfig

        return MissConfig(r=settings.rank, miss_dropout=settings.dropout, target_modules=targets, task_type="CAUSAL_LM")


METHOD = Miss()
