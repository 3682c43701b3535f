"""Prefix tuning (Li and Liang 2021): trained keys and values of virtual tokens in every layer, before every text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorabench.methods.prompts import BeforeText
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import require_files
from lorabench.models.linears import HasLinears


class PrefixTuning(BeforeText):
    """A key and a value for each virtual token, layer and head."""

    def count_trainable(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """Virtual tokens by layers by the widths of key and value."""
        config = require_files(shape.config, settings)
        heads = int(config.get("num_attention_heads") or config.get("n_head") or 1)
        groups = int(config.get("num_key_value_heads") or heads)
        width = int(config.get("head_dim") or shape.hidden_size // heads)
        return self.num_virtual_tokens(settings) * shape.num_layers * 2 * width * groups

    def configuration(self, settings: AdapterSettings) -> Any:
        """PEFT's PrefixTuningConfig."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(num_virtual_tokens=self.num_virtual_tokens(settings), task_type="CAUSAL_LM")


METHOD = PrefixTuning()
