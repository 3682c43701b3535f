"""Where forms of a run are made: what several of them need is made once, in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorabench.core.storage import new_folder
from lorabench.deploy.subject import Subject


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

    def wide_gguf(self) -> Path:
        """The same as a GGUF file in float32. Raises ModelError where llama.cpp has no such model."""
        target = self.folder / "wide.gguf"
        if not target.is_file():
            from lorabench.deploy.gguf.file import write_gguf

            temporary = self.folder / "wide.gguf.writing"
            write_gguf(self.merged(), temporary, type_name="f32", name=self.subject.record.run_id)
            temporary.rename(target)
        return target

    @property
    def note(self) -> str:
        """On the merging, for the card."""
        if self.difference is None:
            return "Merged in float32"
        return (
            f"Merged in float32: the logits differ from the adapter's by at most {self.difference:.2g} on a check of "
            "64 tokens"
        )
