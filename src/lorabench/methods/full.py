"""Full fine-tuning: every weight of the base is trained, in float32."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorabench.methods.adapter import Adapter
from lorabench.methods.method import Method
from lorabench.methods.portable import BaseReference
from lorabench.methods.saved import FULL_WEIGHTS
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase


class FullAdapter(Adapter):
    """Every weight of the base, beside a copy of what it was."""

    def __init__(self, base: FrozenBase, settings: AdapterSettings) -> None:
        super().__init__(base, settings)
        self._published = {name: weight.detach().clone() for name, weight in base.model.named_parameters()}
        for weight in base.model.parameters():
            weight.data = weight.data.float()
        base.model.requires_grad_(True)
        base.has_wide_parts = True
        base.choose_path()

    def _write(self, folder: Path, base: BaseReference | None) -> None:
        """Write all weights and the configuration: a folder that Transformers loads."""
        import torch
        from safetensors.torch import save_file

        configuration = copy.deepcopy(self.base.model.config)
        configuration.dtype = torch.float32
        configuration.save_pretrained(folder)

        tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in self.named_parameters()}
        save_file(tensors, folder / FULL_WEIGHTS)

    def _take_off(self) -> None:
        for name, parameter in self.base.model.named_parameters():
            published = self._published.pop(name)
            parameter.data = parameter.data.to(published.dtype).copy_(published)


class Full(Method):
    """Full fine-tuning."""

    unused_settings = frozenset({"rank", "alpha", "dropout", "target_modules"})
    is_fast = False
    trains_base = True

    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Every weight."""
        return shape.num_parameters

    def training_work(
        self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str], forward: float
    ) -> float:
        """Every weight needs both gradients, so that the backward pass takes two forward ones."""
        return 3.0 * forward

    def attach(self, base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
        """Train the base itself; nothing is drawn at random."""
        return FullAdapter(base, settings)


METHOD = Full()
