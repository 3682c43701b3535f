"""What a reference to a base model means, and where that lies: a catalogue name, or a folder."""

from __future__ import annotations

from pathlib import Path

from lorabench.core.progress import Progress
from lorabench.models.catalog import MODELS, get_model
from lorabench.models.entry import ModelLocation, ModelSource
from lorabench.models.sources.folder import FolderModel


def is_model_path(name_or_path: str) -> bool:
    """Whether a reference means a folder rather than a catalogue name."""
    if name_or_path in MODELS.entries:
        return False
    return "/" in name_or_path or "\\" in name_or_path or Path(name_or_path).is_dir()


def find_model(name_or_path: str) -> ModelSource:
    """What a reference means. Raises UnknownNameError, or ModelError for a folder that cannot be used."""
    return FolderModel.of(Path(name_or_path)) if is_model_path(name_or_path) else get_model(name_or_path)


def locate_model(name_or_path: str, *, progress: Progress | None = None) -> ModelLocation:
    """The model's folder, made on first use. Raises UnknownNameError, ModelError, DownloadError or DiskError."""
    return find_model(name_or_path).locate(progress)
