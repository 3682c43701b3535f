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
from lorabench.models.shape import ModelShape, read_config, read_header, read_model_shape, weight_files

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")

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
        found = {
            "name": content_name(folder.resolve().name, revision),
            "family": str(read_config(folder).get("model_type", "unknown")),
        }
        return model.model_copy(update=found)

    def present_folder(self) -> Path:
        """The folder. Raises ModelError where there is none."""
        folder = user_path(self.path)
        if not folder.is_dir():
            raise ModelError(f"{folder}: there is no such folder")
        return folder

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
        """Read from config.json and the headers of the weights."""
        return read_model_shape(self.present_folder())

    def locate(self, progress: Progress | None = None) -> ModelLocation:
        """The folder as it is."""
        place = self.present_folder().resolve()
        return ModelLocation(self.name, place, self.expected_revision(), self.info(), _snapshot(place))


def _snapshot(folder: Path) -> Published | None:
    """What a folder of the hub's own cache, `models--owner--name/snapshots/commit`, holds."""
    found = _SNAPSHOT.search(folder.as_posix())
    return Published(found["repository"].replace("--", "/"), found["commit"]) if found else None


SOURCE = FolderModel
