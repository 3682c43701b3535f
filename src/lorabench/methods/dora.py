"""DoRA (Liu et al. 2024): LoRA on each weight's direction, with the length of each of its rows trained beside it."""

from __future__ import annotations

from collections.abc import Sequence

from lorabench.methods.lora import Lora
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears


class Dora(Lora):
    """LoRA with magnitudes."""

    shares_passes = False
    reference_bytes = 10
    matrix_bytes = (0, 112)

    def is_fast_with(self, settings: AdapterSettings) -> bool:
        """Of its dropout PEFT makes more than one product of each layer."""
        return settings.dropout == 0.0

    def count_beside_factors(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """One magnitude for each output, too."""
        magnitudes = sum(shape.linears[path][1] for path in targets)
        return super().count_beside_factors(shape, settings, targets) + magnitudes

    def fast_bytes(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str], width: int) -> int:
        """Outputs before they are scaled, too."""
        outputs = sum(shape.linears[path][1] for path in targets)
        return super().fast_bytes(shape, settings, targets, width) + width * outputs


METHOD = Dora(use_dora=True)
