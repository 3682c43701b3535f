"""OFT (Qiu et al. 2023): each layer's input is turned by trained rotations of its blocks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings


class OftSettings(AdapterSettings):
    """OFT's own setting."""

    block_size: Annotated[int, Field(ge=2, le=4096)] = 32
    """Inputs that are turned together; it divides every layer's inputs."""


class Oft(OnLinears):
    """A skew-symmetric matrix for each block."""

    settings = OftSettings
    unused_settings = frozenset({"rank", "alpha", "dropout"})
    takes_transposed = False

    def problem_with(self, settings: AdapterSettings, inputs: int, outputs: int) -> str:
        """Blocks fill the inputs."""
        size = _block_size(settings)
        return f"block_size {size} has to divide the inputs" if inputs % size else ""

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """What is above the diagonal of each block."""
        size = _block_size(settings)
        return inputs // size * size * (size - 1) // 2

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's OFTConfig."""
        from peft import OFTConfig

        return OFTConfig(r=0, oft_block_size=_block_size(settings), target_modules=targets, task_type="CAUSAL_LM")


def _block_size(settings: AdapterSettings) -> int:
    assert isinstance(settings, OftSettings)
    return settings.block_size


METHOD = Oft()
