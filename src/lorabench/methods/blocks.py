"""Methods whose parameters belong to blocks of a layer's inputs that are turned together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings

BlockSize = Annotated[int, Field(ge=2, le=4096)]


class BlockSettings(AdapterSettings):
    """Each method has a block size of its own by default."""

    block_size: BlockSize
    """Inputs that are turned together; it divides every layer's inputs."""


class OnBlocks(OnLinears):
    """Whole blocks fill a layer's inputs; PEFT takes no layers that store [inputs, outputs]."""

    unused_settings = frozenset({"rank", "alpha", "dropout"})
    takes_transposed = False

    def problem_with(self, settings: AdapterSettings, inputs: int, outputs: int) -> str:
        """Blocks fill the inputs."""
        size = block_size_of(settings)
        return f"block_size {size} has to divide the inputs" if inputs % size else ""


def block_size_of(settings: AdapterSettings) -> int:
    """Of a method on blocks."""
    assert isinstance(settings, BlockSettings)
    return settings.block_size
