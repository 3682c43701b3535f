"""The adapter as a GGUF file beside one of its base, which llama.cpp puts together when it loads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorabench.core.errors import InputError
from lorabench.deploy.code_blocks import shell_block
from lorabench.deploy.forms.adapter import require_adapter
from lorabench.deploy.forms.gguf import EXACT, require_writable
from lorabench.deploy.gguf.llama import LORA_FILE, QUANTISED, quantise, require_llama
from lorabench.deploy.ollama import modelfile
from lorabench.deploy.subject import Subject
from lorabench.deploy.workshop import Workshop
from lorabench.methods.saved import WEIGHTS


@dataclass(frozen=True)
class GgufAdapterForm:
    """The adapter in float32, its base in one of llama.cpp's types."""

    type_name: str
    relation: str = "adapter"
    library: str = "gguf"
    tags: tuple[str, ...] = ("gguf", "llama.cpp", "lora")
    engine: str = "llama"

    @property
    def name(self) -> str:
        """With the base's type."""
        return f"gguf_adapter:{self.type_name}"

    @property
    def description(self) -> str:
        """The type as llama.cpp calls it."""
        return f"A LoRA adapter as a GGUF file beside its base ({self.type_name})"

    def check(self, subject: Subject) -> None:
        """Raises InputError for what is no plain LoRA adapter, ModelError for a model unknown to llama.cpp."""
        from lorabench.deploy.gguf.lora import require_plain_lora

        require_plain_lora(subject.adapter, require_adapter(subject), WEIGHTS)
        require_writable(subject)

    def write(self, workshop: Workshop, folder: Path) -> list[str]:
        """Convert base and adapter, and quantise the base where it is asked for."""
        from lorabench.deploy.gguf.file import type_counts, write_gguf
        from lorabench.deploy.gguf.lora import write_lora
        from lorabench.methods.saved import attach_saved
        from lorabench.models.base import load_base

        subject, output = workshop.subject, folder / f"base-{self.type_name}.gguf"
        if self.type_name in EXACT:
            write_gguf(workshop.base(), output, type_name=self.type_name.lower(), name=subject.record.spec.model)
        else:
            require_llama()
            quantise(workshop.wide_gguf(of_base=True), output, self.type_name, workshop.importance())
        base = load_base(subject.location.folder, precision="fp32", device="cpu")
        attach_saved(base, subject.adapter)
        write_lora(base, folder / LORA_FILE, subject.record.run_id)
        lines = modelfile(output.name, workshop.base()).splitlines()
        lines.insert(1, f"ADAPTER ./{LORA_FILE}")
        (folder / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
        counted = ", ".join(f"{kind} {count}" for kind, count in type_counts(output).items())
        return [
            "The adapter is in float32, unmerged",
            f"Tensors of the base by the type that they really have: {counted}",
        ]

    def usage(self, subject: Subject) -> list[str]:
        """With llama.cpp and Ollama."""
        return [
            shell_block(f"llama-server -m base-{self.type_name}.gguf --lora {LORA_FILE}"),
            shell_block("ollama create adapted -f Modelfile", "ollama run adapted"),
        ]


def _make(argument: str) -> GgufAdapterForm:
    accepted = [*EXACT, *QUANTISED]
    if argument.upper() not in accepted:
        names = ", ".join(f"gguf_adapter:{kind}" for kind in accepted)
        given = f"gguf_adapter:{argument[:40]}" if argument else "gguf_adapter alone"
        raise InputError(f"form: {given} is not accepted; accepted: {names}")
    return GgufAdapterForm(argument.upper())


FORM = _make
