"""What a base model of the catalogue is, whatever it comes from; each kind of source is a file of `models/sources`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lorabench.core.catalog import Count, Entry
from lorabench.core.progress import Progress
from lorabench.models.shape import ModelShape


@dataclass(frozen=True)
class ModelInfo:
    """What a record holds about a base model besides its name and revision."""

    source: str
    """The kind of source: wheel, hub, mini, folder, …"""
    family: str
    licence: str | None
    weights_note: str | None
    pinned: bool


@dataclass(frozen=True)
class Published:
    """Where the hub has the same files."""

    repository: str
    commit: str


@dataclass(frozen=True)
class ModelLocation:
    """A model on this machine: an ordinary Transformers folder with safetensors."""

    name: str
    folder: Path
    revision: str
    info: ModelInfo
    published: Published | None = None


class ModelSource(Entry):
    """A base model before it is here. A kind of source adds its own fields, and defines how the model is located."""

    family: str
    """The architecture's family: gpt2, gpt-neox, gemma, llama, qwen3, …"""
    gated: bool = False
    """Whether it is given only to accounts that accepted its licence."""
    weights_note: str | None = None
    """How the weights differ from the published ones, if they do; goes into every record."""

    @abstractmethod
    def expected_revision(self) -> str:
        """The revision that goes into run ids, known without fetching: `unpinned` where only the hub knows."""

    @abstractmethod
    def present_folder(self) -> Path | None:
        """Where the model lies on this machine; None where it does not, or where only locating it shows that."""

    @abstractmethod
    def model_shape(self) -> ModelShape:
        """Its sizes, known without fetching it, so that a plan can be made."""

    def config_json(self) -> dict[str, Any] | None:
        """Its config.json where that is known without fetching the model."""
        return None

    @abstractmethod
    def locate(self, progress: Progress | None = None) -> ModelLocation:
        """The model's folder, made on first use. Raises ModelError, DownloadError or DiskError."""

    def info(self, weights_note: str | None = None) -> ModelInfo:
        """What a record holds about it; `weights_note`: other than the catalogue's."""
        return ModelInfo(self.source, self.family, self.licence, weights_note or self.weights_note, self.pinned)


class ModelEntry(ModelSource):
    """A base model whose entry states its shape."""

    num_parameters: Count
    num_layers: Count
    hidden_size: Count
    vocabulary_size: Count
    max_context_length: Count
    layer_path: str
    """Module path of the list of layers: layer i is `<layer_path>.<i>`."""
    linear_modules: dict[str, tuple[Count, Count]]
    """Path within a layer -> (inputs, outputs)."""
    config: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Of its config.json: what neither the sizes nor the family tell. Random weights alone need it."""

    @property
    def head_width(self) -> int | None:
        """Width of an attention head; None: that of most published models of the family."""
        return self.config.get("head_dim")

    def model_shape(self) -> ModelShape:
        """As the entry states it."""
        return ModelShape(
            linears={
                f"{self.layer_path}.{layer}.{module}": size
                for layer in range(self.num_layers)
                for module, size in self.linear_modules.items()
            },
            experts=frozenset(),
            num_parameters=self.num_parameters,
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            vocabulary_size=self.vocabulary_size,
            max_context_length=self.max_context_length,
            family=self.family.replace("-", "_"),
        )
