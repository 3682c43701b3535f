"""What a reference to a base model means, and where that lies: a catalogue name, a folder, or a hub id."""

from __future__ import annotations

from pathlib import Path

from lorabench.core.errors import ModelError
from lorabench.core.home import user_path
from lorabench.core.progress import Progress
from lorabench.models.by_hub_id import HubIdModel, is_hub_id
from lorabench.models.catalog import MODELS, get_model
from lorabench.models.entry import ModelLocation, ModelSource
from lorabench.models.sources.folder import FolderModel


def is_model_path(reference: str) -> bool:
    """Whether a reference means a folder rather than a catalogue name or a hub id, which a folder goes before."""
    if reference in MODELS.entries:
        return False
    if is_hub_id(reference):
        return Path(reference).is_dir()
    return "/" in reference or "\\" in reference or Path(reference).is_dir()


def beside(reference: str, folder: Path) -> str:
    """What a reference in a file of `folder` means: folders are looked for there, then in the working folder.

    Raises ModelError for a folder that is in neither.
    """
    path = user_path(reference)
    if reference in MODELS.entries or path.is_absolute():
        places = ""
    elif (folder / path).is_dir():
        return str(folder / path)
    else:
        places = f" in {Path.cwd()}" if folder == Path() else f", neither in {folder.absolute()} nor in {Path.cwd()}"
    if is_model_path(reference) and not path.is_dir():
        raise ModelError(f"models: {reference}: there is no such folder{places}")
    return reference


def find_model(reference: str) -> ModelSource:
    """What a reference means. Raises UnknownNameError, ModelError for what cannot be used, or DownloadError."""
    if is_model_path(reference):
        return FolderModel.of(Path(reference))
    return HubIdModel.of(reference) if is_hub_id(reference) else get_model(reference)


def locate_model(reference: str, *, progress: Progress | None = None) -> ModelLocation:
    """The model's folder, made on first use. Raises UnknownNameError, ModelError, DownloadError or DiskError."""
    return find_model(reference).locate(progress)
