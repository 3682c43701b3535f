"""The adapter alone, in PEFT's format, with the tokenizer beside it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from lorabench.core.errors import InputError
from lorabench.deploy.code_blocks import base_name, python_block, shell_block
from lorabench.deploy.subject import Subject
from lorabench.deploy.workshop import Workshop
from lorabench.methods.saved import CONFIGURATION


class AdapterForm:
    """The run's own files, byte for byte."""

    name = "adapter"
    description = "An adapter in PEFT's format"
    relation = "adapter"
    library = "peft"
    tags = ("lora", "peft")
    engine = "transformers"

    def write(self, workshop: Workshop, folder: Path) -> list[str]:
        """Copy them."""
        subject = workshop.subject
        if not (subject.adapter / CONFIGURATION).is_file():
            raise InputError(
                f"{subject.record.run_id}: every weight was trained, so there is no adapter; accepted: --form merged"
            )
        shutil.copytree(subject.adapter, folder, dirs_exist_ok=True)
        return ["The adapter's files are those that were measured, byte for byte"]

    def usage(self, subject: Subject) -> list[str]:
        """With PEFT, and served by vLLM."""
        base = base_name(subject)
        rank = json.loads((subject.adapter / CONFIGURATION).read_bytes()).get("r")
        blocks = [
            python_block(
                "from peft import PeftModel",
                "from transformers import AutoModelForCausalLM, AutoTokenizer",
                "",
                f"base = AutoModelForCausalLM.from_pretrained({base!r})",
                'model = PeftModel.from_pretrained(base, ".")',
                'tokenizer = AutoTokenizer.from_pretrained(".")',
            )
        ]
        if rank:
            blocks.append(
                shell_block(
                    f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {rank} --lora-modules adapted=."
                )
            )
        return blocks


def _make(argument: str) -> AdapterForm:
    if argument:
        raise InputError(f"form: adapter:{argument[:40]} is not accepted; adapter takes nothing after it")
    return AdapterForm()


FORM = _make
