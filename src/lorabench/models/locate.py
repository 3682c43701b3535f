"""Finds a base model's folder: a catalogue name is fetched, converted or built on first use, a path is checked."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorabench.core.errors import DataError, ModelError
from lorabench.core.home import user_path
from lorabench.core.locks import exclusively
from lorabench.core.progress import Progress
from lorabench.core.revisions import content_name, file_revision, folder_revision
from lorabench.core.storage import cache_root, new_folder, set_aside, sha256_file
from lorabench.experiment.catalog import get_model, list_models
from lorabench.models.shape import read_config, read_header, weight_files

if TYPE_CHECKING:
    from lorabench.experiment.catalog import ModelEntry

MANIFEST = "lorabench-model.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")

_SNAPSHOT = re.compile(r"/models--(?P<repository>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})$")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelInfo:
    """What a record says about a base model besides its name and revision."""

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


def is_model_path(name_or_path: str) -> bool:
    """Whether a reference means a folder rather than a catalogue name."""
    if any(entry.name == name_or_path for entry in list_models()):
        return False
    return "/" in name_or_path or "\\" in name_or_path or Path(name_or_path).is_dir()


def locate_model(name_or_path: str, *, progress: Progress | None = None) -> ModelLocation:
    """The model's folder, made on first use. Raises UnknownNameError, ModelError, DownloadError or DiskError."""
    if is_model_path(name_or_path):
        return _locate_folder(user_path(name_or_path))
    entry = get_model(name_or_path)
    if entry.source == "hub":
        return _locate_hub(entry, progress)
    return _locate_made(entry, progress)


def expected_model_revision(entry: ModelEntry) -> str:
    """The revision that goes into run ids, known without fetching: `unpinned` where only the hub knows."""
    if entry.wheel is not None:
        return f"{entry.wheel.package}-{entry.wheel.version}"
    return entry.revision or "unpinned"


def made_folder(entry: ModelEntry) -> Path:
    """Where a model that is converted or built here lies, or would lie."""
    from lorabench.samplepack.wheel_model import CONVERSION_VERSION

    recipe = entry.model_dump(mode="json", exclude={"notes", "licence", "download_bytes", "weights_note"})
    key = hashlib.sha256(json.dumps([CONVERSION_VERSION, recipe], sort_keys=True).encode()).hexdigest()
    return cache_root() / "models" / f"{entry.name}-{key[:16]}"


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


def _locate_hub(entry: ModelEntry, progress: Progress | None) -> ModelLocation:
    from lorabench.models.hub import fetch_hub_model

    folder, revision = fetch_hub_model(entry, progress=progress)
    published = Published(str(entry.repository), revision)
    return ModelLocation(entry.name, folder, revision, _info(entry), published)


def _locate_made(entry: ModelEntry, progress: Progress | None) -> ModelLocation:
    """A model of a wheel or a mini model: made once, checked whenever it is used."""
    folder = made_folder(entry)
    with exclusively(folder):
        if folder.exists():
            problem = _find_damage(folder)
            if problem is None:
                return _made_location(entry, folder)
            moved = set_aside(folder)
            _LOG.warning("%s is damaged (%s): set aside as %s and made again", folder, problem, moved.name)
        with new_folder(folder) as temporary:
            _make(entry, temporary, progress)
            files = {path.name: _state(path) for path in sorted(temporary.iterdir()) if path.is_file()}
            manifest = {"name": entry.name, "files": files}
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return _made_location(entry, folder)


def _make(entry: ModelEntry, folder: Path, progress: Progress | None) -> None:
    if entry.source == "wheel":
        from lorabench.samplepack.wheel_model import convert_wheel_model

        convert_wheel_model(entry, folder, progress)
    else:
        from lorabench.samplepack.mini import build_mini

        build_mini(entry, folder, progress)


def _made_location(entry: ModelEntry, folder: Path) -> ModelLocation:
    note = entry.weights_note
    if entry.source == "mini":
        weights = json.loads((folder / MANIFEST).read_bytes())["files"]["model.safetensors"]["sha256"]
        note = f"{note or 'a mini model'} (weights {weights[:16]})"
    return ModelLocation(entry.name, folder, expected_model_revision(entry), _info(entry, note))


def _info(entry: ModelEntry, weights_note: str | None = None) -> ModelInfo:
    return ModelInfo(entry.source, entry.family, entry.licence, weights_note or entry.weights_note, entry.pinned)


def _state(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _find_damage(folder: Path) -> str | None:
    """What is wrong with a made model: every file is compared with the hash it had when it was made."""
    try:
        files: Mapping[str, Any] = json.loads((folder / MANIFEST).read_bytes())["files"]
        for name, state in files.items():
            path = folder / name
            if path.stat().st_size != state["bytes"] or file_revision(path) != state["sha256"]:
                return f"{name} is not as it was written"
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{Path(str(error.filename or folder)).name}: {error.strerror or error}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not whole"
    return None
