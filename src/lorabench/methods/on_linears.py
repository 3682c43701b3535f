"""Methods on linear layers that PEFT computes: what each of them is lies in its own file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lorabench.core.errors import ConfigError
from lorabench.methods.adapter import Adapter
from lorabench.methods.any_peft import AnyPeftAdapter
from lorabench.methods.method import Method
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import require_untransposed
from lorabench.models.linears import HasLinears

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase


class OnLinears(Method):
    """Parameters of one size for each linear layer, made from one of PEFT's configurations."""

    is_fast = False
    reference_bytes = 4
    takes_transposed = True
    """Whether PEFT adapts layers that store [inputs, outputs], as GPT-2's do."""
    adapter: type[AnyPeftAdapter] = AnyPeftAdapter
    """What is attached."""

    def resolve_targets(self, shape: HasLinears, settings: AdapterSettings) -> list[str]:
        """Full paths of the adapted modules; layers that the method does not take are refused."""
        targets = super().resolve_targets(shape, settings)
        if not self.takes_transposed:
            require_untransposed(shape, settings)
        for path in targets:
            problem = self.problem_with(settings, *shape.linears[path])
            if problem:
                inputs, outputs = shape.linears[path]
                raise ConfigError(f"adapter: {problem}; the layer {path.rsplit('.', 1)[-1]} is {inputs} to {outputs}")
        return targets

    def problem_with(self, settings: AdapterSettings, inputs: int, outputs: int) -> str:
        """Why a layer and these settings do not fit one another; empty where they do."""
        return ""

    @abstractmethod
    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """Trainable parameters of one layer."""

    @abstractmethod
    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's configuration on the modules at these full paths."""

    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Summed over the layers."""
        return sum(self.count_layer(settings, *shape.linears[path]) for path in targets)

    def attach(self, base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
        """Attach PEFT's modules."""
        from lorabench.models.loaded import LoadedLinears

        shape = LoadedLinears(base.model)
        targets = self.resolve_targets(shape, settings)
        config = self.configuration(settings, targets, seed)
        if hasattr(config, "fan_in_fan_out"):
            config.fan_in_fan_out = shape.transposed
        planned = targets, self.count_trainable(shape, settings, targets)
        return self.adapter(base, settings, config, seed=seed, planned=planned)
