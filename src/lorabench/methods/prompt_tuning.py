"""Prompt tuning (Lester et al. 2021): trained embeddings of virtual tokens before every text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorabench.methods.prompts import BeforeText
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears


class PromptTuning(BeforeText):
    """One embedding for each virtual token."""

    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Virtual tokens by the embedding's width."""
        return self.num_virtual_tokens(settings) * shape.hidden_size

    def configuration(self, settings: AdapterSettings) -> Any:
        """PEFT's PromptTuningConfig, which starts from embeddings of tokens drawn at random."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(
            num_virtual_tokens=self.num_virtual_tokens(settings),
            prompt_tuning_init="SAMPLE_VOCAB",
            task_type="CAUSAL_LM",
        )


METHOD = PromptTuning()
