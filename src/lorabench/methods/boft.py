"""BOFT (Liu et al. 2024): OFT's rotations, in one factor as PEFT has it anywhere, and scales of the outputs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings


class BoftSettings(AdapterSettings):
    """BOFT's own setting."""

    block_size: Annotated[int, Field(ge=2, le=4096)] = 4
    """Inputs that are turned together; it divides every layer's inputs."""


class Boft(OnLinears):
    """A matrix for each block, and a scale for each output."""

    settings = BoftSettings
    unused_settings = frozenset({"rank", "alpha", "dropout"})
    takes_transposed = False

    def problem_with(self, settings: AdapterSettings, inputs: int, outputs: int) -> str:
        """Blocks fill the inputs."""
        size = _block_size(settings)
        return f"block_size {size} has to divide the inputs" if inputs % size else ""

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """Whole blocks, and the scales."""
        return inputs * _block_size(settings) + outputs

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's BOFTConfig."""
        from peft import BOFTConfig

        return BOFTConfig(
            boft_block_size=_block_size(settings),
            boft_n_butterfly_factor=1,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )


def _block_size(settings: AdapterSettings) -> int:
    assert isinstance(settings, BoftSettings)
    return settings.block_size


METHOD = Boft()
