"""What a plan needs to know of a base model, from the catalogue or from a folder's headers; nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorabench.core.errors import ModelError
from lorabench.core.home import user_path
from lorabench.experiment.catalog import get_model
from lorabench.models.locate import (
    expected_model_revision,
    is_model_path,
    local_model_name,
    local_model_revision,
    made_folder,
)
from lorabench.models.shape import ModelShape, read_model_shape, shape_of_entry

LARGE_VOCABULARY = 32_000


@dataclass(frozen=True)
class ModelPlan:
    """A base model before it is loaded."""

    reference: str
    """As the experiment names it: a catalogue name or a path."""
    name: str
    revision: str
    pinned: bool
    shape: ModelShape
    missing_bytes: int
    """To fetch before it can be used."""
    folder: Path | None
    """Where it lies, if it does."""

    @property
    def bytes_per_token(self) -> float:
        """About, on English text: large vocabularies hold longer pieces."""
        return 4.0 if self.shape.vocabulary_size >= LARGE_VOCABULARY else 3.2

    @property
    def weight_bytes(self) -> int:
        """On the disk, once it is here."""
        if self.folder is not None:
            return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        return self.missing_bytes or 4 * self.shape.num_parameters

    def tokens_in(self, num_bytes: int) -> int:
        """About how many tokens so many bytes of text are."""
        return round(num_bytes / self.bytes_per_token)


def plan_model(reference: str) -> ModelPlan:
    """Look a model up. Raises UnknownNameError, or ModelError for a folder that cannot be used."""
    if is_model_path(reference):
        folder = user_path(reference)
        if not folder.is_dir():
            raise ModelError(f"models: {reference}: there is no such folder")
        revision = local_model_revision(folder)
        return ModelPlan(
            reference=reference,
            name=local_model_name(folder, revision),
            revision=revision,
            pinned=True,
            shape=read_model_shape(folder),
            missing_bytes=0,
            folder=folder,
        )
    entry = get_model(reference)
    made = made_folder(entry) if entry.source != "hub" else None
    present = made is not None and made.is_dir()
    return ModelPlan(
        reference=reference,
        name=entry.name,
        revision=expected_model_revision(entry),
        pinned=entry.pinned,
        shape=shape_of_entry(entry),
        missing_bytes=0 if present else entry.download_bytes,
        folder=made if present else None,
    )
