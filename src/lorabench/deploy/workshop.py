"""Where forms of a run are made: what several of them need is made once, in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lorabench.core.storage import new_folder
from lorabench.deploy.subject import Subject

if TYPE_CHECKING:
    from lorabench.deploy.gguf.llama import Importance


@dataclass
class Workshop:
    """A run, and a folder of its own for what forms are made of; whoever gives the folder removes it."""

    subject: Subject
    folder: Path
    difference: float | None = None
    """The largest difference of merged and adapted logits, once it was merged here."""

    def merged(self) -> Path:
        """The model merged in float32, a Transformers folder. Raises as `deploy.merge.save_merged`."""
        target = self.folder / "merged"
        if not target.is_dir():
            from lorabench.deploy.merge import save_merged

            with new_folder(target) as temporary:
                self.difference = save_merged(self.subject.location, self.subject.adapter, temporary)
        return target

    def base(self) -> Path:
        """The base by itself in float32, a Transformers folder with the run's tokenizer."""
        target = self.folder / "base"
        if not target.is_dir():
            from lorabench.deploy.merge import save_base

            with new_folder(target) as temporary:
                save_base(self.subject.location, self.subject.adapter, temporary)
        return target

    def wide_gguf(self, of_base: bool = False) -> Path:
        """The merged model, or the base, as a GGUF file in float32. Raises ModelError where llama.cpp has no such."""
        target = self.folder / ("wide-base.gguf" if of_base else "wide.gguf")
        if not target.is_file():
            from lorabench.deploy.gguf.file import write_gguf

            temporary, record = target.with_suffix(".writing"), self.subject.record
            model, name = (self.base(), record.spec.model) if of_base else (self.merged(), record.run_id)
            write_gguf(model, temporary, type_name="f32", name=name)
            temporary.rename(target)
        return target

    def importance(self) -> Importance:
        """How large the inputs of the merged model's matrices are on the text that the run trained on.

        Raises InputError where that text has changed since.
        """
        target = self.folder / "importance.npz"
        if not target.is_file():
            from lorabench.deploy.gguf.importance import NUM_TOKENS, measure_importance
            from lorabench.deploy.quality import training_rows

            found: dict[str, Any] = measure_importance(
                self.merged(), training_rows(self.subject, self.folder, NUM_TOKENS)
            )
            temporary = self.folder / "importance.writing.npz"
            np.savez(temporary, **found)
            temporary.rename(target)
        with np.load(target) as stored:
            return dict(stored)

    @property
    def note(self) -> str:
        """On the merging, for the card."""
        if self.difference is None:
            return "Merged in float32"
        return (
            f"Merged in float32: the logits differ from the adapter's by at most {self.difference:.2g} on a check of "
            "64 tokens"
        )
