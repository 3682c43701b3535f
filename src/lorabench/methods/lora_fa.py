"""LoRA-FA (Zhang et al. 2023): LoRA whose first factor stays as it was drawn; the second alone is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lorabench.methods.lora import Lora
from lorabench.methods.lora_settings import layer_ranks
from lorabench.methods.peft_adapter import PeftAdapter
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears

if TYPE_CHECKING:
    from torch import Tensor


class LoraFaAdapter(PeftAdapter):
    """LoRA with A frozen."""

    def prepare(self, published: Mapping[str, Tensor]) -> None:
        """Leave A as it is."""
        for name, parameter in self.trained_model.named_parameters():
            if "lora_A" in name:
                parameter.requires_grad_(False)


class LoraFa(Lora):
    """LoRA that trains B alone."""

    adapter = LoraFaAdapter

    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """B, and modules that are trained whole."""
        second = sum(rank * shape.linears[path][1] for path, rank in layer_ranks(settings, targets).items())
        return second + self.count_beside_factors(shape, settings, targets)

    def count_saved(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """A, too: it was drawn at random, and no other machine draws it alike for certain."""
        return super().count_trainable(shape, settings, targets)


METHOD = LoraFa()
