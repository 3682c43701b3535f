"""Base and adapter in one Transformers folder, merged in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorabench.core.errors import InputError
from lorabench.deploy.code_blocks import python_block, shell_block
from lorabench.deploy.subject import Subject

if TYPE_CHECKING:
    from lorabench.models.base import Precision

_NAMES = {"bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True)
class MergedForm:
    """Safetensors of one type."""

    precision: Precision
    relation: str = "finetune"
    library: str = "transformers"
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """With its type."""
        return f"merged:{self.precision}"

    @property
    def description(self) -> str:
        """The type as the field calls it."""
        return f"The merged weights ({_NAMES[self.precision]})"

    def write(self, subject: Subject, folder: Path) -> list[str]:
        """Merge, check, round, save."""
        from lorabench.deploy.merge import save_merged

        difference = save_merged(subject.location, subject.adapter, folder, precision=self.precision)
        rounded = "" if self.precision == "fp32" else f"; they were then rounded to {self.precision}"
        return [
            f"Merged in float32: the logits differ from the adapter's by at most {difference:.2g} on "
            f"a check of 64 tokens{rounded}"
        ]

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
