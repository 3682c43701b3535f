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

EXACT = ("F32", "F16", "BF16", "Q8_0")
"""Types that are written here, without llama.cpp."""


_PLAIN = "-plain"
"""After a type: quantised without an importance matrix."""


@dataclass(frozen=True)
class GgufForm:
    """The merged model in one of llama.cpp's types."""

    type_name: str
    is_weighed: bool = False
    """By an importance matrix from the text that the run trained on."""
    relation: str = "quantized"
    library: str = "gguf"
    tags: tuple[str, ...] = ("gguf", "llama.cpp")
    engine: str = "llama"

    @property
    def name(self) -> str:
        """With its type."""
        return f"gguf:{self._label}"

    @property
    def _label(self) -> str:
        return self.type_name + _PLAIN * (self.type_name in QUANTISED and not self.is_weighed)

    @property
    def description(self) -> str:
        """The type as llama.cpp calls it."""
        return f"A GGUF file ({self.type_name})"

    def check(self, subject: Subject) -> None:
        """Raises InputError for an adapter that is in no weight, ModelError for a model unknown to llama.cpp."""
        from lorabench.deploy.merge import require_in_weights

        require_in_weights(subject.adapter)
        require_writable(subject)

    def write(self, workshop: Workshop, folder: Path) -> list[str]:
        """Merge, convert, quantise where it is asked for, and count the types that came of it."""
        from lorabench.deploy.gguf.file import type_counts, write_gguf

        output = folder / self.file_name(workshop.subject)
        notes = []
        if self.type_name in EXACT:
            merged = workshop.merged()
            write_gguf(merged, output, type_name=self.type_name.lower(), name=workshop.subject.record.run_id)
        else:
            require_llama()
            quantise(workshop.wide_gguf(), output, self.type_name, workshop.importance() if self.is_weighed else None)
            if self.is_weighed:
                notes.append("Quantised with an importance matrix from the first text that the run trained on")
        (folder / "Modelfile").write_text(modelfile(output.name, workshop.merged()), encoding="utf-8")
        counted = ", ".join(f"{kind} {count}" for kind, count in type_counts(output).items())
        return [workshop.note, *notes, f"Tensors by the type that they really have: {counted}"]

    def usage(self, subject: Subject) -> list[str]:
        """With llama.cpp and Ollama."""
        file = self.file_name(subject)
        return [
            shell_block(f"llama-server -m {file}"),
            shell_block("ollama create adapted -f Modelfile", "ollama run adapted"),
        ]

    def file_name(self, subject: Subject) -> str:
        """Of the file within the folder."""
        return f"{subject.record.run_id}-{self._label}.gguf"


def require_writable(subject: Subject) -> None:
    """Raises ModelError where llama.cpp has no such model, or would split its text in another way."""
    from lorabench.deploy.gguf import file

    has_tokenizer = (subject.adapter / "tokenizer.json").is_file()
    file.require_writable(subject.location.folder, subject.adapter if has_tokenizer else subject.location.folder)


def _make(argument: str) -> GgufForm:
    accepted = [*EXACT, *QUANTISED, *(kind + _PLAIN for kind in QUANTISED)]
    for kind in accepted:
        if argument.upper() == kind.upper():
            type_name = kind.removesuffix(_PLAIN)
            return GgufForm(type_name, is_weighed=kind in QUANTISED)
    given = f"gguf:{argument[:40]}" if argument else "gguf alone"
    raise InputError(f"form: {given} is not accepted; accepted: {', '.join(f'gguf:{kind}' for kind in accepted)}")


FORM = _make
