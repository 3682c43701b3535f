"""RandLoRA (Albert et al. 2025): a full-rank change, summed of random products of low rank with trained scales."""

from __future__ import annotations

import warnings
from typing import Any

from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings


class Randlora(OnLinears):
    """As many bases as make full rank, each with scales of its own."""

    takes_quantized = True

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """For each basis a scale of each of the rank's directions and of each entry of the smaller side."""
        smaller = min(inputs, outputs)
        num_bases = -(-smaller // settings.rank)
        return num_bases * (settings.rank + smaller)

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's RandLoraConfig; the random bases are drawn again from its key wherever the adapter is loaded."""
        from peft import RandLoraConfig

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Specified to not save basis")
            return RandLoraConfig(
                r=settings.rank,
                randlora_alpha=settings.alpha_value,
                randlora_dropout=settings.dropout,
                projection_prng_key=seed,
                save_projection=False,  # PEFT would write them once for each layer
                target_modules=targets,
                task_type="CAUSAL_LM",
            )


METHOD = Randlora()
