"""LoRA+ (Hayou et al. 2024): LoRA whose second factor learns at a higher rate than the first."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lorabench.methods.adapter import ParameterGroup
from lorabench.methods.lora import Lora
from lorabench.methods.lora_settings import LoraSettings
from lorabench.methods.peft_adapter import PeftAdapter


class LoraPlusSettings(LoraSettings):
    """LoRA+'s own setting."""

    lr_ratio: Annotated[float, Field(gt=0.0, le=10_000.0)] = 16.0
    """B's learning rate ÷ A's, which is the run's."""


class LoraPlusAdapter(PeftAdapter):
    """LoRA in two groups."""

    def optimizer_groups(self) -> list[ParameterGroup]:
        """A, and B at `lr_ratio` times its rate."""
        assert isinstance(self.settings, LoraPlusSettings)
        second = [weight for name, weight in self.named_parameters() if "lora_B" in name]
        first = [weight for name, weight in self.named_parameters() if "lora_B" not in name]
        return [ParameterGroup(first), ParameterGroup(second, rate=self.settings.lr_ratio)]


class LoraPlus(Lora):
    """LoRA, optimised otherwise."""

    settings = LoraPlusSettings
    adapter = LoraPlusAdapter


METHOD = LoraPlus()
