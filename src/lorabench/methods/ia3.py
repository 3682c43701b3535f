"""(IA)^3 (Liu et al. 2022): a trained scale of each output of attention's layers, and of each input of the MLP's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears, is_attention


class Ia3(OnLinears):
    """One vector for each layer."""

    takes_quantized = True
    reference_bytes = 0
    unused_settings = frozenset({"rank", "alpha", "dropout"})

    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Outputs of attention's layers and inputs of the MLP's."""
        return sum(shape.linears[path][is_attention(path)] for path in targets)

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """At most; which of the two it is depends on the layer's place."""
        return max(inputs, outputs)

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's IA3Config."""
        from peft import IA3Config

        return IA3Config(
            target_modules=targets,
            feedforward_modules=[path for path in targets if not is_attention(path)],
            task_type="CAUSAL_LM",
        )


METHOD = Ia3()
