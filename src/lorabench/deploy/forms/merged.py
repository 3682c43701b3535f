"""Base and adapter in one Transformers folder, merged in float32."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorabench.core.errors import InputError
from lorabench.deploy.code_blocks import python_block, shell_block
from lorabench.deploy.subject import Subject
from lorabench.deploy.workshop import Workshop

if TYPE_CHECKING:
    from lorabench.models.base import Precision

_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True)
class MergedForm:
    """Safetensors of one type."""

    precision: Precision
    relation: str = "finetune"
    library: str = "transformers"
    tags: tuple[str, ...] = ()
    engine: str = "transformers"

    @property
    def name(self) -> str:
        """With its type."""
        return f"merged:{self.precision}"

    @property
    def description(self) -> str:
        """The type as the field calls it."""
        return f"The merged weights ({_DTYPES[self.precision]})"

    def write(self, workshop: Workshop, folder: Path) -> list[str]:
        """Merge, check, round, save."""
        merged = workshop.merged()
        if self.precision == "fp32":
            shutil.copytree(merged, folder, dirs_exist_ok=True)
            return [workshop.note]
        import torch

        from lorabench.deploy.merge import round_weights

        round_weights(merged, folder, torch.bfloat16)
        return [f"{workshop.note}; its weights were then rounded to bfloat16"]

    def usage(self, subject: Subject) -> list[str]:
        """With Transformers, and served by vLLM."""
        return [
            python_block(
                "from transformers import AutoModelForCausalLM, AutoTokenizer",
                "",
                'model = AutoModelForCausalLM.from_pretrained(".", dtype="auto")',
                'tokenizer = AutoTokenizer.from_pretrained(".")',
            ),
            shell_block("vllm serve ."),
        ]


def _make(argument: str) -> MergedForm:
    accepted: dict[str, Precision] = {"": "bf16", "bf16": "bf16", "fp32": "fp32"}
    if argument not in accepted:
        raise InputError(f"form: merged:{argument[:40]} is not accepted; accepted: merged (bf16), merged:fp32")
    return MergedForm(accepted[argument])


FORM = _make
