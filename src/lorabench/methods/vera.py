"""VeRA (Kopiczko et al. 2024): random factors that all layers share, and two trained vectors for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorabench.methods.method import mask_bytes
from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears


class Vera(OnLinears):
    """A scale for each of the rank's directions and for each output."""

    unused_settings = frozenset({"alpha"})
    is_fast = True

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """Two vectors."""
        return settings.rank + outputs

    def count_saved(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """The shared factors lie beside the vectors, so that no other generator of random numbers can change them."""
        sizes = [shape.linears[path] for path in targets]
        widest = max(inputs for inputs, _ in sizes) + max(outputs for _, outputs in sizes)
        return self.count_trainable(shape, settings, targets) + settings.rank * widest

    def training_work(
        self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str], forward: float
    ) -> float:
        """The products with the shared factors, the input's gradients through both, and the second's own."""
        inputs, outputs = (sum(shape.linears[path][side] for path in targets) for side in (0, 1))
        return 2.0 * forward + settings.rank * (2.0 * inputs + 3.0 * outputs)

    def fast_bytes(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str], width: int) -> int:
        """The first products, and where dropout keeps a layer's inputs: a byte each."""
        return width * settings.rank * len(targets) + mask_bytes(shape, settings, targets)

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's VeraConfig."""
        from peft import VeraConfig

        return VeraConfig(
            r=settings.rank,
            vera_dropout=settings.dropout,
            projection_prng_key=seed,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )


METHOD = Vera()
