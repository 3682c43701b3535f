"""What a plan needs to know of a base model, from the catalogue or from a folder's headers; nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorabench.core.errors import ConfigError, ModelError
from lorabench.models.entry import ModelSource
from lorabench.models.linears import SPLIT_WHEN_LOADED
from lorabench.models.locate import beside, find_model
from lorabench.models.shape import ModelShape

LARGE_VOCABULARY = 32_000


@dataclass(frozen=True)
class ModelPlan:
    """A base model before it is loaded."""

    reference: str
    """As the experiment names it: a catalogue name, a path or a hub id."""
    source: ModelSource
    """What that means."""
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

    def check_context(self, context_length: int, virtual_tokens: int, method: str) -> None:
        """Raise ConfigError where windows are longer than it reads beside the virtual tokens of an adapter's method."""
        room = self.shape.max_context_length - virtual_tokens
        if context_length > room:
            beside = f" beside the virtual tokens of {method}" * (virtual_tokens > 0)
            raise ConfigError(
                f"training.context_length: {context_length} is more than {self.name} can read{beside}; at most {room}"
            )

    def tokens_in(self, num_bytes: int) -> int:
        """About how many tokens so many bytes of text are."""
        return round(num_bytes / self.bytes_per_token)


def plan_model(reference: str) -> ModelPlan:
    """Look a model up. Raises UnknownNameError, ModelError for what cannot be used, or DownloadError."""
    beside(reference, Path())
    source = find_model(reference)
    folder, shape = source.present_folder(), source.model_shape()
    if shape.family in SPLIT_WHEN_LOADED:
        raise ModelError(
            f"models: {reference}: models of the type {shape.family} are loaded with other layers than their files "
            "hold, so that a plan cannot say what would be adapted; lorabench evaluate scores them"
        )
    return ModelPlan(
        reference=reference,
        source=source,
        name=source.name,
        revision=source.expected_revision(),
        pinned=source.pinned,
        shape=shape,
        missing_bytes=source.download_bytes if folder is None else 0,
        folder=folder,
    )
