"""Base and adapter in one Transformers folder, merged in float32."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lorabench.core.errors import InputError
from lorabench.deploy.code_blocks import python_block, shell_block
from lorabench.deploy.subject import Subject
from lorabench.deploy.workshop import Workshop

Kind = Literal["bf16", "fp32", "nf4", "nf4-double", "int8"]
_HELD = {
    "bf16": "bfloat16",
    "fp32": "float32",
    "nf4": "linear layers in NF4",
    "nf4-double": "linear layers in NF4, double quantisation",
    "int8": "linear layers in eight bits",
}


@dataclass(frozen=True)
class MergedForm:
    """Safetensors of one type, or with linear layers as bitsandbytes holds them."""

    kind: Kind
    library: str = "transformers"

    @property
    def name(self) -> str:
        """With its type."""
        return f"merged:{self.kind}"

    @property
    def description(self) -> str:
        """The type as the field calls it."""
        return f"The merged weights ({_HELD[self.kind]})"

    @property
    def relation(self) -> str:
        """See Form."""
        return "finetune" if self.kind in ("bf16", "fp32") else "quantized"

    @property
    def tags(self) -> tuple[str, ...]:
        """As the hub has them."""
        return () if self.kind in ("bf16", "fp32") else ("bitsandbytes",)

    @property
    def engine(self) -> str:
        """See Form."""
        return "transformers" if self.kind in ("bf16", "fp32") else "bitsandbytes"

    def check(self, subject: Subject) -> None:
        """Raises InputError for an adapter that is in no weight."""
        from lorabench.deploy.merge import require_in_weights

        require_in_weights(subject.adapter)

    def write(self, workshop: Workshop, folder: Path) -> list[str]:
        """Merge, check, round or quantise, save."""
        from lorabench.deploy.merge import quantise_weights, round_weights

        merged = workshop.merged()
        if self.kind == "fp32":
            shutil.copytree(merged, folder, dirs_exist_ok=True)
            return [workshop.note]
        if self.kind == "bf16":
            import torch

            round_weights(merged, folder, torch.bfloat16)
            return [f"{workshop.note}; its weights were then rounded to bfloat16"]
        quantise_weights(merged, folder, self.kind)
        return [f"{workshop.note}; then {_HELD[self.kind]} by bitsandbytes, everything else in bfloat16"]

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
    for kind in get_args(Kind):
        if kind == (argument or "bf16"):
            return MergedForm(kind)
    accepted = ", ".join(f"merged:{kind}" for kind in get_args(Kind))
    raise InputError(f"form: merged:{argument[:40]} is not accepted; accepted: merged (bf16), {accepted}")


FORM = _make
