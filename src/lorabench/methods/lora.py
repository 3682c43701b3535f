"""LoRA (Hu et al. 2021): a trained product of two factors of low rank beside each frozen linear layer.

y = W x + alpha / rank * B A x, with A [rank, inputs] drawn at random and B [outputs, rank] zero at the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lorabench.methods.adapter import Adapter
from lorabench.methods.lora_settings import LoraSettings, layer_ranks, lora_settings, matched
from lorabench.methods.method import Method, mask_bytes
from lorabench.methods.peft_adapter import PeftAdapter
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import require_rank_fits
from lorabench.methods.whole_modules import require_trainable, whole_modules
from lorabench.models.linears import HasLinears

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase


class Lora(Method):
    """LoRA, and what differs from it by an option of PEFT's LoraConfig, which `peft_options` are."""

    settings: type[AdapterSettings] = LoraSettings
    takes_quantized = True
    shares_passes = True
    reference_bytes = 4
    adapter: type[PeftAdapter] = PeftAdapter
    """What `attach` makes."""

    def __init__(self, **peft_options: Any) -> None:
        self.peft_options = peft_options

    def resolve_targets(self, shape: HasLinears, settings: AdapterSettings) -> list[str]:
        """Full paths of the adapted modules; a rank that is larger than its module is refused too."""
        targets = super().resolve_targets(shape, settings)
        require_rank_fits(shape, settings.rank, layer_ranks(settings, targets))
        matched("alpha_pattern", lora_settings(settings).alpha_pattern, targets)
        whole_modules(shape, settings, targets)
        return targets

    def count_factors(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Parameters of A and B: rank x (inputs + outputs) for each module."""
        return sum(rank * sum(shape.linears[path]) for path, rank in layer_ranks(settings, targets).items())

    def count_beside_factors(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Parameters that are trained and saved beside A and B: modules of the base that are trained whole."""
        return sum(whole_modules(shape, settings, targets).values())

    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """A and B, and what is trained beside them."""
        return self.count_factors(shape, settings, targets) + self.count_beside_factors(shape, settings, targets)

    def training_work(
        self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str], forward: float
    ) -> float:
        """The products with A and B, their gradients, and those of modules that are trained whole come on top."""
        whole = sum(whole_modules(shape, settings, targets).values())
        return 2.0 * forward + 3.0 * self.count_factors(shape, settings, targets) + whole

    def count_optimized(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """A, B and modules that are trained whole."""
        return self.count_factors(shape, settings, targets) + sum(whole_modules(shape, settings, targets).values())

    def fast_bytes(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str], width: int) -> int:
        """The first products, and where dropout keeps a layer's inputs: a byte each."""
        return width * sum(layer_ranks(settings, targets).values()) + mask_bytes(shape, settings, targets)

    def attach(self, base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
        """Attach PEFT's LoRA modules."""
        return self._attach(base, settings, seed=seed, is_empty=False)

    def attach_empty(self, base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
        """Without drawing anything, where all of A and B is in a checkpoint."""
        return self._attach(base, settings, seed=seed, is_empty=self.adapter is PeftAdapter)

    def _attach(self, base: FrozenBase, settings: AdapterSettings, *, seed: int, is_empty: bool) -> Adapter:
        from peft import LoraConfig

        from lorabench.models.loaded import LoadedLinears

        shape = LoadedLinears(base.model)
        targets = self.resolve_targets(shape, settings)
        patterns = lora_settings(settings)
        whole = whole_modules(shape, settings, targets)
        require_trainable(base.model, whole)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha_value,
            rank_pattern=dict(patterns.rank_pattern),
            alpha_pattern=dict(patterns.alpha_pattern),
            modules_to_save=list(whole) or None,
            lora_dropout=settings.dropout,
            target_modules=targets,
            fan_in_fan_out=shape.transposed,
            task_type="CAUSAL_LM",
            **self.peft_options,
        )
        num_trainable = self.count_trainable(shape, settings, targets)
        return self.adapter(base, settings, config, seed=seed, num_trainable=num_trainable, is_empty=is_empty)


METHOD = Lora()
