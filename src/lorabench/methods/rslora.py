"""rsLoRA (Kalajdzievski 2023): LoRA whose product is scaled by alpha / sqrt(rank) in place of alpha / rank."""

from __future__ import annotations

from lorabench.methods.lora import Lora

METHOD = Lora(use_rslora=True)
