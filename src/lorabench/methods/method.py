"""What a method is: the interface that every file with a `METHOD` fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import resolve_targets
from lorabench.models.linears import HasLinears

if TYPE_CHECKING:
    from lorabench.methods.adapter import Adapter
    from lorabench.models.base import FrozenBase


class Method(ABC):
    """A way of adapting a frozen base. It holds no state of a run: that lies in the `Adapter` that `attach` returns.

    Everything but `attach` is arithmetic on shapes, done before any weights are there: `shape` is the model's, and
    `targets` are the full paths of the adapted modules.
    """

    settings: type[AdapterSettings] = AdapterSettings
    """The class of its settings; a field beyond those of AdapterSettings is a key of the experiment's `adapter` section
    with this method alone."""
    unused_settings: frozenset[str] = frozenset()
    """Settings of AdapterSettings that mean nothing to it: no table shows them, and no run's identity has them."""
    takes_quantized = False
    """Whether it can be put on linear layers of four or eight bits."""
    quantizations: frozenset[str] = frozenset()
    """The values of `base.quantization` that it is for, where it means nothing on others."""
    shares_passes = False
    """Whether it leaves the base's weights alone, and several of its adapters may be trained in one pass over them."""
    refused_optimizers: frozenset[str] = frozenset()
    """Optimizers whose scored parameters are others than `after_step` leaves, where that counts."""
    trains_base = False
    """Whether it trains all of the base's weights, which are then held in float32."""
    is_fast = True
    """Whether the fast path computes it; else PEFT's and Transformers' own modules do."""
    reference_bytes = 0
    """Memory that these keep more for it than for the base itself, for each token and output of a linear layer."""
    statistics_bytes = 0
    """What it keeps itself for each trained weight."""
    keeps_published = False
    """Whether the base's weights as published lie beside those that it has changed."""
    matrix_bytes = (0, 0)
    """Where they make a layer's change as a matrix: for each of its weights, what is kept of every adapted layer, and
    what passes of the largest."""

    def is_fast_with(self, settings: AdapterSettings) -> bool:
        """Whether the fast path computes it with these settings."""
        return self.is_fast

    def uses(self, setting: str) -> bool:
        """Whether a setting means something to it."""
        return setting not in self.unused_settings

    def short_name(self, settings: AdapterSettings) -> str:
        """A few readable characters that are part of a run's id, such as `lora-r16`."""
        return f"{settings.method}-r{settings.rank}" if self.uses("rank") else settings.method

    def resolve_targets(self, shape: HasLinears, settings: AdapterSettings) -> list[str]:
        """Full paths of the adapted modules, in the model's order.

        Raises ConfigError where the settings do not fit the model.
        """
        return resolve_targets(shape, settings.target_modules) if self.uses("target_modules") else []

    def num_virtual_tokens(self, settings: AdapterSettings) -> int:
        """Tokens of the model's context that it takes for itself, before every text."""
        return 0

    @abstractmethod
    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Trainable parameters. What is attached is compared with it."""

    def count_saved(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Parameters that are written to disk."""
        return self.count_trainable(shape, settings, targets)

    def training_work(
        self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str], forward: float
    ) -> float:
        """Multiply-adds of the forward and backward pass per token, where the base's forward pass takes `forward`.

        The frozen weights need input gradients only, trained ones both.
        """
        return 2.0 * forward + 3.0 * self.count_trainable(shape, settings, targets)

    def count_optimized(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Parameters that a gradient and an optimizer's state are counted for in estimates of memory."""
        return self.count_trainable(shape, settings, targets)

    def fast_bytes(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str], width: int) -> int:
        """What the fast path keeps of a token for the adapter, whose activations have `width` bytes."""
        return 0

    def attach_empty(self, base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
        """Attach an adapter whose trained weights are read right after: what they are until then does not matter."""
        return self.attach(base, settings, seed=seed)

    @abstractmethod
    def attach(self, base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
        """Attach a fresh adapter whose initial weights depend on settings and seed alone.

        Raises ConfigError where the settings do not fit the model, ModelError where what is attached is not what
        `resolve_targets` and `count_trainable` say; the base is then as before.
        """


def mask_bytes(shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
    """What the fast path keeps of a token where adapted layers drop inputs: a byte for each."""
    return sum(shape.linears[path][0] for path in targets) if settings.dropout else 0
