"""BitFit (Ben Zaken et al. 2022): the biases of the base are trained, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorabench.core.errors import ConfigError
from lorabench.methods.adapter import Adapter
from lorabench.methods.method import Method
from lorabench.methods.portable import BaseReference
from lorabench.methods.saved import FULL_WEIGHTS, PART
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import require_files
from lorabench.models.linears import HasLinears

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase


class BiasAdapter(Adapter):
    """The biases, in float32, beside a copy of what they were."""

    def __init__(self, base: FrozenBase, settings: AdapterSettings) -> None:
        super().__init__(base, settings)
        biases = [weight for name, weight in base.model.named_parameters() if name.endswith(".bias")]
        self._published = [(weight, weight.data) for weight in biases]
        for weight in biases:
            weight.data = weight.data.float().clone()
            weight.requires_grad_(True)
        base.has_wide_parts = True
        base.choose_path()

    def _write(self, folder: Path, base: BaseReference | None) -> None:
        """Write the biases under their names in the model."""
        from safetensors.torch import save_file

        tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in self.named_parameters()}
        save_file(tensors, folder / FULL_WEIGHTS, metadata=PART)

    def _take_off(self) -> None:
        for weight, published in self._published:
            weight.data = published


class BitFit(Method):
    """Every bias that the base has."""

    unused_settings = frozenset({"rank", "alpha", "dropout", "target_modules"})
    is_fast = False

    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """The biases. Raises ConfigError for a model without."""
        sizes = require_files(shape.parameters, settings)
        count = sum(size for name, size in sizes.items() if name.endswith(".bias"))
        if not count:
            raise ConfigError("adapter.method: bitfit trains biases, and the model has none; take ln_tuning or lora")
        return count

    def attach(self, base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
        """Train the base's own biases; nothing is drawn at random."""
        from lorabench.models.loaded import LoadedLinears

        planned = self.count_trainable(LoadedLinears(base.model), settings, [])
        adapter = BiasAdapter(base, settings)
        try:
            adapter.require_as_planned([], planned)
        except BaseException:
            adapter.detach()
            raise
        return adapter


METHOD = BitFit()
