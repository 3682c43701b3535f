"""A GGUF file for llama.cpp and what is built on it, with a Modelfile for Ollama."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorabench.core.errors import InputError
from lorabench.deploy.code_blocks import shell_block
from lorabench.deploy.gguf.llama import QUANTISED, quantise, require_llama
from lorabench.deploy.ollama import modelfile
from lorabench.deploy.subject import Subject
from lorabench.deploy.workshop import Workshop

_EXACT = ("F32", "F16", "BF16", "Q8_0")
"""Types that are written here, without llama.cpp."""


@dataclass(frozen=True)
class GgufForm:
    """The merged model in one of llama.cpp's types."""

    type_name: str
    relation: str = "quantized"
    library: str = "gguf"
    tags: tuple[str, ...] = ("gguf", "llama.cpp")
    engine: str = "llama"

    @property
    def name(self) -> str:
        """With its type."""
        return f"gguf:{self.type_name}"

    @property
    def description(self) -> str:
        """The type as llama.cpp calls it."""
        return f"A GGUF file ({self.type_name})"

    def write(self, workshop: Workshop, folder: Path) -> list[str]:
        """Merge, convert, quantise where it is asked for, and count the types that came of it."""
        from lorabench.deploy.gguf.file import type_counts, write_gguf

        output = folder / self.file_name(workshop.subject)
        if self.type_name in _EXACT:
            merged = workshop.merged()
            write_gguf(merged, output, type_name=self.type_name.lower(), name=workshop.subject.record.run_id)
        else:
            require_llama()
            quantise(workshop.wide_gguf(), output, self.type_name)
        (folder / "Modelfile").write_text(modelfile(output.name, workshop.merged()), encoding="utf-8")
        counted = ", ".join(f"{kind} {count}" for kind, count in type_counts(output).items())
        return [workshop.note, f"Tensors by the type that they really have: {counted}"]

    def usage(self, subject: Subject) -> list[str]:
        """With llama.cpp and Ollama."""
        file = self.file_name(subject)
        return [
            shell_block(f"llama-server -m {file}"),
            shell_block("ollama create adapted -f Modelfile", "ollama run adapted"),
        ]

    def file_name(self, subject: Subject) -> str:
        """Of the file within the folder."""
        return f"{subject.record.run_id}-{self.type_name}.gguf"


def _make(argument: str) -> GgufForm:
    accepted = [*_EXACT, *QUANTISED]
    if argument.upper() not in accepted:
        given = f"gguf:{argument[:40]}" if argument else "gguf alone"
        raise InputError(f"form: {given} is not accepted; accepted: {', '.join(f'gguf:{kind}' for kind in accepted)}")
    return GgufForm(argument.upper())


FORM = _make
