"""The adapter alone, in PEFT's format, with the tokenizer beside it; on its base as it is, or on a quantised one."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lorabench.core.errors import InputError
from lorabench.deploy.code_blocks import base_name, python_block, shell_block
from lorabench.deploy.subject import Subject
from lorabench.deploy.workshop import Workshop
from lorabench.methods.saved import CONFIGURATION, num_virtual_tokens
from lorabench.models.quantized import BITSANDBYTES_KINDS, Quantization

_LOADING = {
    "nf4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16"',
    "nf4-double": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16", '
    "bnb_4bit_use_double_quant=True",
    "int8": "load_in_8bit=True",
}
"""What Transformers' `BitsAndBytesConfig` is given."""


@dataclass(frozen=True)
class AdapterForm:
    """The run's own files, byte for byte."""

    quantization: Quantization = "none"
    """Of the base, made when it is loaded."""
    relation: str = "adapter"
    library: str = "peft"

    @property
    def name(self) -> str:
        """With how its base is held."""
        return "adapter" if self.quantization == "none" else f"adapter:{self.quantization}"

    @property
    def description(self) -> str:
        """With how its base is held."""
        base = "" if self.quantization == "none" else f", for a base held in {self.quantization}"
        return f"An adapter in PEFT's format{base}"

    @property
    def tags(self) -> tuple[str, ...]:
        """As the hub has them."""
        return ("lora", "peft") if self.quantization == "none" else ("lora", "peft", "bitsandbytes")

    @property
    def engine(self) -> str:
        """See Form."""
        return "transformers" if self.quantization == "none" else "bitsandbytes"

    def check(self, subject: Subject) -> None:
        """Raises InputError where every weight was trained, or PEFT cannot put the adapter on such a base."""
        kind = str(require_adapter(subject).get("peft_type"))
        if self.quantization == "none" or num_virtual_tokens(subject.adapter):
            return
        if not find_spec(f"peft.tuners.{kind.lower()}.bnb"):
            raise InputError(
                f"{subject.record.run_id}: PEFT puts no adapter of the kind {kind} on layers of four or eight bits; "
                f"accepted: adapter, merged:{self.quantization}"
            )

    def write(self, workshop: Workshop, folder: Path) -> list[str]:
        """Copy them."""
        self.check(workshop.subject)
        shutil.copytree(workshop.subject.adapter, folder, dirs_exist_ok=True)
        return ["The adapter's files are those that were measured, byte for byte"]

    def usage(self, subject: Subject) -> list[str]:
        """With PEFT, and served by vLLM."""
        base, rank = base_name(subject), require_adapter(subject).get("r")
        held, imports = "", "AutoModelForCausalLM, AutoTokenizer"
        if self.quantization != "none":
            held = f", quantization_config=BitsAndBytesConfig({_LOADING[self.quantization]})"
            imports = f"{imports}, BitsAndBytesConfig"
        blocks = [
            python_block(
                "from peft import PeftModel",
                f"from transformers import {imports}",
                "",
                f"base = AutoModelForCausalLM.from_pretrained({base!r}{held})",
                'model = PeftModel.from_pretrained(base, ".")',
                'tokenizer = AutoTokenizer.from_pretrained(".")',
            )
        ]
        if rank and self.quantization == "none":
            blocks.append(
                shell_block(
                    f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {rank} --lora-modules adapted=."
                )
            )
        return blocks


def require_adapter(subject: Subject) -> dict[str, Any]:
    """PEFT's, of the run's adapter. Raises InputError where there is none."""
    path = subject.adapter / CONFIGURATION
    if not path.is_file():
        raise InputError(
            f"{subject.record.run_id}: every weight was trained, so there is no adapter; accepted: --form merged"
        )
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def _make(argument: str) -> AdapterForm:
    for quantization in BITSANDBYTES_KINDS:
        if argument == quantization:
            return AdapterForm(quantization)
    if argument:
        accepted = ", ".join(f"adapter:{kind}" for kind in BITSANDBYTES_KINDS)
        raise InputError(f"form: adapter:{argument[:40]} is not accepted; accepted: adapter, {accepted}")
    return AdapterForm()


FORM = _make
