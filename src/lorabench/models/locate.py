"""Finds a base model's folder: a catalogue name is fetched, converted or built on first use, a path is checked."""

from __future__ import annotations

import re
from pathlib import Path

from lorabench.core.errors import ModelError
from lorabench.core.home import user_path
from lorabench.core.progress import Progress
from lorabench.core.revisions import content_name, folder_revision
from lorabench.models.catalog import get_model, list_models
from lorabench.models.entry import ModelInfo, ModelLocation, Published
from lorabench.models.shape import read_config, read_header, weight_files

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")

_SNAPSHOT = re.compile(r"/models--(?P<repository>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})$")


def is_model_path(name_or_path: str) -> bool:
    """Whether a reference means a folder rather than a catalogue name."""
    if any(entry.name == name_or_path for entry in list_models()):
        return False
    return "/" in name_or_path or "\\" in name_or_path or Path(name_or_path).is_dir()


def locate_model(name_or_path: str, *, progress: Progress | None = None) -> ModelLocation:
    """The model's folder, made on first use. Raises UnknownNameError, ModelError, DownloadError or DiskError."""
    if is_model_path(name_or_path):
        return _locate_folder(user_path(name_or_path))
    return get_model(name_or_path).locate(progress)


def local_model_name(folder: Path, revision: str) -> str:
    """The name of a model folder in tables: its last part, and the beginning of its content's hash."""
    return content_name(folder.resolve().name, revision)


def local_model_revision(folder: Path) -> str:
    """One hash over weights, configuration and tokenizer. Checks that they are there; raises ModelError."""
    read_config(folder)
    weights = weight_files(folder)
    for path in weights:
        read_header(path)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(f"{folder}: there is no tokenizer; save it there with tokenizer.save_pretrained(folder)")
    others = [*TOKENIZER_FILES, "config.json", "tokenizer_config.json", "special_tokens_map.json", "merges.txt"]
    return folder_revision([*weights, *(folder / name for name in others if (folder / name).is_file())])


def _locate_folder(folder: Path) -> ModelLocation:
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder")
    revision = local_model_revision(folder)
    family = str(read_config(folder).get("model_type", "unknown"))
    info = ModelInfo(source="folder", family=family, licence=None, weights_note=None, pinned=True)
    place = folder.resolve()
    return ModelLocation(local_model_name(folder, revision), place, revision, info, _snapshot(place))


def _snapshot(folder: Path) -> Published | None:
    """What a folder of the hub's own cache, `models--owner--name/snapshots/commit`, holds."""
    found = _SNAPSHOT.search(folder.as_posix())
    return Published(found["repository"].replace("--", "/"), found["commit"]) if found else None
