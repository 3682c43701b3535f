"""The merged model with linear layers that torchao holds in eight or four bits once it is on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorabench.core.errors import InputError, ModelError
from lorabench.deploy.code_blocks import python_block
from lorabench.deploy.engines.torchao import CONFIGURATIONS
from lorabench.deploy.subject import Subject
from lorabench.deploy.workshop import Workshop
from lorabench.models.shape import read_config


@dataclass(frozen=True)
class TorchaoForm:
    """Weights alone are quantised; products are computed in bfloat16."""

    kind: str
    relation: str = "quantized"
    library: str = "transformers"
    tags: tuple[str, ...] = ("torchao",)
    engine: str = "torchao"

    @property
    def name(self) -> str:
        """With its type."""
        return f"torchao:{self.kind}"

    @property
    def description(self) -> str:
        """With its type."""
        return f"The merged weights (bfloat16), which torchao quantises to {self.kind} when they are loaded"

    def check(self, subject: Subject) -> None:
        """Raises InputError for an adapter that is in no weight, ModelError for layers that torchao leaves alone."""
        from lorabench.deploy.merge import require_in_weights

        require_in_weights(subject.adapter)
        folder = subject.location.folder
        if read_config(folder).get("model_type") == "gpt2":
            raise ModelError(
                f"{folder}: torchao quantises linear layers, and those of GPT-2 are of another kind (Conv1D)"
            )

    def write(self, workshop: Workshop, folder: Path) -> list[str]:
        """Merge, check and round: quantised weights cannot be saved as safetensors and loaded again everywhere."""
        import torch

        from lorabench.deploy.merge import round_weights

        round_weights(workshop.merged(), folder, torch.bfloat16)
        return [
            f"{workshop.note}; its weights were then rounded to bfloat16",
            f"Linear layers are quantised to {self.kind} by torchao when the model is loaded; the head is not",
        ]

    def usage(self, subject: Subject) -> list[str]:
        """With Transformers."""
        configuration = CONFIGURATIONS[self.kind]
        return [
            python_block(
                f"from torchao.quantization import {configuration}",
                "from transformers import AutoModelForCausalLM, AutoTokenizer, TorchAoConfig",
                "",
                f"quantization = TorchAoConfig({configuration}())",
                'model = AutoModelForCausalLM.from_pretrained(".", dtype="bfloat16", device_map="cuda",',
                "                                             quantization_config=quantization)",
                'tokenizer = AutoTokenizer.from_pretrained(".")',
            )
        ]


def _make(argument: str) -> TorchaoForm:
    if argument in CONFIGURATIONS:
        return TorchaoForm(argument)
    given = f"torchao:{argument[:40]}" if argument else "torchao alone"
    raise InputError(
        f"form: {given} is not accepted; accepted: {', '.join(f'torchao:{kind}' for kind in CONFIGURATIONS)}"
    )


FORM = _make
