"""Transformers with linear layers that bitsandbytes holds in four or eight bits, merged or beneath the adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorabench.deploy.engine import Source
from lorabench.deploy.engines.transformers import TransformersEngine, load_form
from lorabench.models.quantized import quantization_of, require_bitsandbytes

if TYPE_CHECKING:
    from lorabench.models.base import FrozenBase


class BitsandbytesEngine(TransformersEngine):
    """See Engine."""

    packages = (*TransformersEngine.packages, "bitsandbytes")

    def require(self) -> None:
        """Raises MissingExtraError where bitsandbytes is not installed."""
        require_bitsandbytes()

    def prepare(self) -> None:
        """See Engine."""
        self.require()
        super().prepare()
        import bitsandbytes

        assert bitsandbytes

    def load(self, source: Source) -> FrozenBase:
        """See TransformersEngine; the form's name says how the base beneath an adapter is held."""
        return load_form(source, "bf16", quantization_of(source.form.partition(":")[2]))


ENGINE = BitsandbytesEngine()
