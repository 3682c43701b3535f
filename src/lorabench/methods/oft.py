"""OFT (Qiu et al. 2023): each layer's input is turned by trained rotations of its blocks."""

from __future__ import annotations

from typing import Any

from lorabench.methods.blocks import BlockSettings, BlockSize, OnBlocks, block_size_of
from lorabench.methods.settings import AdapterSettings


class OftSettings(BlockSettings):
    """OFT's own setting."""

    block_size: BlockSize = 32


class Oft(OnBlocks):
    """A skew-symmetric matrix for each block."""

    settings = OftSettings

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """What is above the diagonal of each block."""
        size = block_size_of(settings)
        return inputs // size * size * (size - 1) // 2

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's OFTConfig."""
        from peft import OFTConfig

        return OFTConfig(r=0, oft_block_size=block_size_of(settings), target_modules=targets, task_type="CAUSAL_LM")


METHOD = Oft()
