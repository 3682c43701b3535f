"""Methods that train what stands before every text: virtual tokens, or keys and values of such in every layer."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lorabench.methods.adapter import Adapter
from lorabench.methods.any_peft import AnyPeftAdapter
from lorabench.methods.method import Method
from lorabench.methods.settings import AdapterSettings

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase


class PromptSettings(AdapterSettings):
    """The setting of methods that stand before the text."""

    virtual_tokens: Annotated[int, Field(ge=1, le=4096)] = 20
    """They take as many of the model's positions."""


class BeforeText(Method):
    """A method that adapts no module."""

    settings = PromptSettings
    unused_settings = frozenset({"rank", "alpha", "dropout", "target_modules"})
    is_fast = False
    takes_quantized = True

    def num_virtual_tokens(self, settings: AdapterSettings) -> int:
        """As set."""
        assert isinstance(settings, PromptSettings)
        return settings.virtual_tokens

    @abstractmethod
    def configuration(self, settings: AdapterSettings) -> Any:
        """PEFT's configuration."""

    def attach(self, base: FrozenBase, settings: AdapterSettings, *, seed: int) -> Adapter:
        """Put PEFT's model around the base."""
        from lorabench.models.loaded import LoadedLinears

        num_trainable = self.count_trainable(LoadedLinears(base.model), settings, [])
        return AnyPeftAdapter(base, settings, self.configuration(settings), seed=seed, planned=([], num_trainable))
