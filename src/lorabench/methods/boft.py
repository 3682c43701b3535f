"""BOFT (Liu et al. 2024): OFT's rotations, in one factor as PEFT has it anywhere, and scales of the outputs."""

from __future__ import annotations

from typing import Any

from lorabench.methods.blocks import BlockSettings, BlockSize, OnBlocks, block_size_of
from lorabench.methods.settings import AdapterSettings


class BoftSettings(BlockSettings):
    """BOFT's own setting."""

    block_size: BlockSize = 4


class Boft(OnBlocks):
    """A matrix for each block, and a scale for each output."""

    settings = BoftSettings

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """Whole blocks, and the scales."""
        return inputs * block_size_of(settings) + outputs

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's BOFTConfig."""
        from peft import BOFTConfig

        return BOFTConfig(
            boft_block_size=block_size_of(settings),
            boft_n_butterfly_factor=1,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )


METHOD = Boft()
