"""LN tuning (Zhao et al. 2023): the weights and biases of the norms are trained, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorabench.methods.adapter import Adapter
from lorabench.methods.any_peft import AnyPeftAdapter
from lorabench.methods.method import Method
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import require_files
from lorabench.models.linears import HasLinears

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase


class LnTuning(Method):
    """The norms."""

    unused_settings = frozenset({"rank", "alpha", "dropout", "target_modules"})
    is_fast = False

    def resolve_targets(self, shape: HasLinears, settings: AdapterSettings) -> list[str]:
        """Full paths of the norms."""
        return [path for path in dict.fromkeys(_paths(shape, settings)) if _is_norm(path)]

    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Their weights and biases."""
        sizes, norms = require_files(shape.parameters, settings), set(targets)
        return sum(size for name, size in sizes.items() if name.rpartition(".")[0] in norms)

    def attach(self, base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
        """Attach PEFT's copies of the norms; nothing is drawn at random."""
        from peft import LNTuningConfig

        from lorabench.models.loaded import LoadedLinears

        shape = LoadedLinears(base.model)
        targets = self.resolve_targets(shape, settings)
        config = LNTuningConfig(target_modules=targets, task_type="CAUSAL_LM")
        planned = targets, self.count_trainable(shape, settings, targets)
        base.has_wide_parts = True
        return AnyPeftAdapter(base, settings, config, seed=seed, planned=planned)


def _paths(shape: HasLinears, settings: AdapterSettings) -> list[str]:
    return [name.rpartition(".")[0] for name in require_files(shape.parameters, settings)]


def _is_norm(path: str) -> bool:
    """By the module's name: `input_layernorm`, `ln_1`, `norm`."""
    name = path.rpartition(".")[2].lower()
    return "norm" in name or name.startswith("ln_")


METHOD = LnTuning()
