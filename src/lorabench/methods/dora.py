"""DoRA (Liu et al. 2024): LoRA on each weight's direction, with the length of each of its rows trained beside it."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.methods.lora import Lora
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears


class Dora(Lora):
    """LoRA with magnitudes."""

    shares_passes = False
    reference_bytes = 16
    fast_outputs = 1

    def is_fast_with(self, settings: AdapterSettings) -> bool:
        """Of its dropout PEFT makes more than one product of each layer."""
        return settings.dropout == 0.0

    def count_beside_factors(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """One magnitude for each output, too."""
        magnitudes = sum(shape.linears[path][1] for path in targets)
        return super().count_beside_factors(shape, settings, targets) + magnitudes


METHOD = Dora(use_dora=True)
