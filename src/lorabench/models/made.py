"""Models that are converted or built on this machine: made once, kept in the cache, checked whenever they are used."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorabench.core.errors import DataError
from lorabench.core.locks import exclusively
from lorabench.core.progress import Progress
from lorabench.core.revisions import file_revision
from lorabench.core.storage import cache_root, new_folder, set_aside, sha256_file
from lorabench.models.entry import ModelEntry, ModelLocation

MANIFEST = "lorabench-model.json"
_DESCRIPTIVE = {"notes", "licence", "download_bytes", "weights_note", "config"}
_LOG = logging.getLogger(__name__)


class MadeModel(ModelEntry):
    """A model of the catalogue that is made here."""

    @abstractmethod
    def make(self, folder: Path, progress: Progress | None = None) -> None:
        """Write the model into `folder`. Raises ModelError, DownloadError or DiskError."""

    @property
    @abstractmethod
    def recipe_version(self) -> int:
        """Rises when `make` makes something else of the same entry."""

    def made_folder(self) -> Path:
        """Where it lies, or would lie."""
        recipe = self.model_dump(mode="json", exclude=_DESCRIPTIVE)
        key = hashlib.sha256(json.dumps([self.recipe_version, recipe], sort_keys=True).encode()).hexdigest()
        return cache_root() / "models" / f"{self.name}-{key[:16]}"

    def present_folder(self) -> Path | None:
        """Where it lies; None where it has not been made."""
        folder = self.made_folder()
        return folder if folder.is_dir() else None

    def locate(self, progress: Progress | None = None) -> ModelLocation:
        """The model's folder, made on first use and again where it is damaged."""
        folder = self.made_folder()
        with exclusively(folder):
            if folder.exists():
                problem = _find_damage(folder)
                if problem is None:
                    return self._location(folder)
                moved = set_aside(folder)
                _LOG.warning("%s is damaged (%s): set aside as %s and made again", folder, problem, moved.name)
            with new_folder(folder) as temporary:
                self.make(temporary, progress)
                files = {path.name: _state(path) for path in sorted(temporary.iterdir()) if path.is_file()}
                manifest = {"name": self.name, "files": files}
                (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        return self._location(folder)

    def note_on_weights(self, weights_sha256: str) -> str | None:
        """The note that a record holds on the weights that were made."""
        return self.weights_note

    def _location(self, folder: Path) -> ModelLocation:
        weights = json.loads((folder / MANIFEST).read_bytes())["files"]["model.safetensors"]["sha256"]
        info = self.info(self.note_on_weights(weights))
        return ModelLocation(self.name, folder, self.expected_revision(), info)


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
