"""What a run can be taken away as: the protocol of forms, each kind of which is one file in `forms/`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lorabench.core.registry import Registry
from lorabench.deploy.subject import Subject
from lorabench.deploy.workshop import Workshop


class Form(Protocol):
    """One form of a run's model, such as the merged weights in bfloat16."""

    name: str
    """As the user gives it: `adapter`, `merged:bf16`, `gguf:Q4_K_M`."""
    description: str
    """What the folder holds, to begin a sentence with."""
    relation: str
    """To its base, in the hub's words: adapter, finetune or quantized."""
    library: str
    """That loads it, in the hub's words."""
    tags: tuple[str, ...]
    engine: str
    """That runs it here, a name of `deploy.engine.ENGINES`."""

    def check(self, subject: Subject) -> None:
        """Before any work: raises InputError or ModelError with the reason why it cannot be made of this run."""

    def write(self, workshop: Workshop, folder: Path) -> list[str]:
        """Write the form's files into an empty folder; returns sentences on how it was made, for the card.

        Raises InputError for what cannot be made of this run and could not be known before.
        """

    def usage(self, subject: Subject) -> list[str]:
        """Blocks of Markdown that say how the other programs load it; commands are given for the folder itself."""


FormKind = Callable[[str], Form]
"""Makes a form of what stands after the colon of its name (empty where there is none); `FORM` in its file.

Raises InputError for an argument that means nothing.
"""

FORMS: Registry[FormKind] = Registry("lorabench.deploy.forms", "FORM", "form")
"""One file a kind of form."""


def make_form(name: str) -> Form:
    """The form that a name such as `gguf:Q4_K_M` means. Raises InputError with what is accepted."""
    kind, _, argument = name.partition(":")
    return FORMS.get(kind)(argument)
