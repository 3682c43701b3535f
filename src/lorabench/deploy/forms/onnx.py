"""A folder for ONNX Runtime: the graph and its weights, as onnxruntime-genai builds them of the merged model."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lorabench.core.errors import InputError, ModelError, RunError
from lorabench.deploy.code_blocks import python_block
from lorabench.deploy.subject import Subject
from lorabench.deploy.workshop import Workshop
from lorabench.models.shape import read_config

Kind = Literal["int4", "int8"]
ARCHITECTURES = ("GemmaForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""What the builder of onnxruntime-genai 0.18 builds of these was scored, and found to be the model."""
_HEAD_MULTIPLE = 16
"""ONNX Runtime's attention wants heads as wide as a multiple of it."""
BLOCK_SIZE = 32
"""Weights that share a scale; the builder's own default."""


@dataclass(frozen=True)
class OnnxForm:
    """The merged model with linear layers in eight bits, or these and the embeddings in four."""

    kind: Kind
    relation: str = "quantized"
    library: str = "onnxruntime-genai"
    tags: tuple[str, ...] = ("onnx", "onnxruntime-genai")
    engine: str = "onnx"

    @property
    def name(self) -> str:
        """With its type."""
        return f"onnx:{self.kind}"

    @property
    def description(self) -> str:
        """With its type."""
        return f"A folder for ONNX Runtime ({self.kind})"

    def check(self, subject: Subject) -> None:
        """Raises InputError for an adapter that is in no weight, ModelError for a model that cannot be built."""
        from lorabench.deploy.merge import require_in_weights

        require_in_weights(subject.adapter)
        require_buildable(subject.location.folder)

    def write(self, workshop: Workshop, folder: Path) -> list[str]:
        """Merge in float32, then have it built. Raises RunError where the builder fails."""
        _build(workshop.merged(), self.kind, folder, workshop.folder / "onnx-cache")
        return [
            workshop.note,
            f"Then {self.kind} by the builder of onnxruntime-genai, a scale for {BLOCK_SIZE} weights; products on "
            "processors round their inputs to eight bits",
        ]

    def usage(self, subject: Subject) -> list[str]:
        """With onnxruntime-genai."""
        return [
            python_block(
                "import onnxruntime_genai as og",
                "",
                'model = og.Model(".")',
                "tokenizer = og.Tokenizer(model)",
                "generator = og.Generator(model, og.GeneratorParams(model))",
                'generator.append_tokens(tokenizer.encode("Once upon a time"))',
                "for _ in range(50):",
                "    generator.generate_next_token()",
                "print(tokenizer.decode(generator.get_sequence(0)))",
            )
        ]


def require_buildable(model: Path) -> None:
    """Raises ModelError where no folder is built of such a model, with the reason."""
    config = read_config(model)
    (found, *_) = config.get("architectures") or ["an architecture that its config.json does not name"]
    if found not in ARCHITECTURES:
        accepted = ", ".join(ARCHITECTURES)
        raise ModelError(f"{model}: no folder for ONNX Runtime is built of {found}; accepted: {accepted}")
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        raise ModelError(f"{model}: no folder for ONNX Runtime is built of a model whose attention looks at windows")
    head = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    if head % _HEAD_MULTIPLE:
        raise ModelError(
            f"{model}: ONNX Runtime's attention wants heads as wide as a multiple of {_HEAD_MULTIPLE}; "
            f"these have {head}"
        )


def _build(merged: Path, kind: Kind, folder: Path, cache: Path) -> None:
    """By the builder's own command, which asks no hub and runs no code of the model's. Raises RunError."""
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(merged), "-o", str(folder)]
    options = ["hf_token=false", "hf_remote=false", f"block_size={BLOCK_SIZE}"]
    settings = ["-m", merged.name, "-p", kind, "-e", "cpu", "-c", str(cache), "--extra_options", *options]
    done = subprocess.run([*command, *settings], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not (folder / "model.onnx").is_file():
        lines = done.stderr.strip().splitlines()
        raise RunError(f"onnx:{kind}: the builder failed{': ' + lines[-1][:300] if lines else ''}")


def _make(argument: str) -> OnnxForm:
    for kind in get_args(Kind):
        if kind == argument:
            return OnnxForm(kind)
    given = f"onnx:{argument[:40]}" if argument else "onnx alone"
    raise InputError(f"form: {given} is not accepted; accepted: {', '.join(f'onnx:{kind}' for kind in get_args(Kind))}")


FORM = _make
