"""Models in a folder of the user's own, as `save_pretrained` writes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from lorabench.core.errors import ModelError
from lorabench.core.home import user_path
from lorabench.core.progress import Progress
from lorabench.core.revisions import content_name, folder_revision
from lorabench.models.entry import ModelLocation, ModelSource, Published
from lorabench.models.hub_snapshot import TOKENIZER_FILES
from lorabench.models.shape import ModelShape, read_config, read_header, read_model_shape, weight_files
from lorabench.models.text_part import require_decoder, text_config

_SNAPSHOT = re.compile(r"/models--(?P<repository>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})$")


class FolderModel(ModelSource):
    """One folder. Its revision is one hash over weights, configuration and tokenizer."""

    source: Literal["folder"] = "folder"
    path: Path
    licence: str | None = None
    download_bytes: int = 0

    @classmethod
    def of(cls, path: Path) -> FolderModel:
        """The model in a folder, called by the folder's name and its content. Raises ModelError."""
        # Without validation, as paths may hold bytes that are no text.
        model = cls.model_construct(name=path.name, path=path, family="unknown")
        folder, revision = model.present_folder(), model.expected_revision()
        published = _snapshot(folder.resolve())
        name = published.repository.rpartition("/")[2] if published else folder.resolve().name
        found = {
            "name": content_name(name, revision),
            "family": str(text_config(read_config(folder)).get("model_type", "unknown")),
        }
        return model.model_copy(update=found)

    def present_folder(self) -> Path:
        """The folder; of a repository in the hub's cache, its snapshot. Raises ModelError where there is none."""
        folder = user_path(self.path)
        if not folder.is_dir():
            raise ModelError(f"{folder}: there is no such folder")
        is_repository = folder.resolve().name.startswith("models--") and (folder / "snapshots").is_dir()
        return _choose_snapshot(folder) if is_repository else folder

    def expected_revision(self) -> str:
        """The hash of what is there now. Checks that all is there that has to be; raises ModelError."""
        folder = self.present_folder()
        read_config(folder)
        weights = weight_files(folder)
        for path in weights:
            read_header(path)
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise ModelError(f"{folder}: there is no tokenizer; save it there with tokenizer.save_pretrained(folder)")
        others = [*TOKENIZER_FILES, "config.json", "tokenizer_config.json", "special_tokens_map.json", "merges.txt"]
        return folder_revision([*weights, *(folder / name for name in others if (folder / name).is_file())])

    def model_shape(self) -> ModelShape:
        """Read from config.json and the headers of the weights. Raises ModelError for what is no decoder."""
        folder = self.present_folder()
        require_decoder(read_config(folder), str(folder))
        return read_model_shape(folder)

    def locate(self, progress: Progress | None = None) -> ModelLocation:
        """The folder as it is."""
        place = self.present_folder().resolve()
        return ModelLocation(self.name, place, self.expected_revision(), self.info(), _snapshot(place))


def _choose_snapshot(folder: Path) -> Path:
    """The snapshot that `main` was last, or the only one, of a repository's folder in the hub's cache."""
    snapshots = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    newest = folder / "refs" / "main"
    wanted = newest.read_text(encoding="utf-8", errors="replace").strip() if newest.is_file() else ""
    chosen = [path for path in snapshots if path.name == wanted] or snapshots
    if len(chosen) != 1:
        raise ModelError(
            f"{folder}: it holds {len(chosen)} snapshots of the repository"
            + ("; give one of them: " + ", ".join(map(str, chosen[:3])) if chosen else ", so there is no model in it")
        )
    return chosen[0]


def _snapshot(folder: Path) -> Published | None:
    """What a folder of the hub's own cache, `models--owner--name/snapshots/commit`, holds."""
    found = _SNAPSHOT.search(folder.as_posix())
    return Published(found["repository"].replace("--", "/"), found["commit"]) if found else None


SOURCE = FolderModel
