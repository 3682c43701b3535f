"""Finds the files that one path means: a file, the files of a folder or of a glob, a dataset that was saved to disk."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path

from lorabench.core.errors import DataError
from lorabench.corpora.documents import Split
from lorabench.corpora.rows.kinds import ACCEPTED, kind_of
from lorabench.corpora.rows.read import check_file

MAX_FILES = 10_000
_SAVED_DATASET = "state.json"
_SAVED_SPLITS = "dataset_dict.json"
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
}
"""What splits are called elsewhere."""
_ABOUT = ("readme", "license", "licence", "changelog")
"""Beginnings of the names of text files that tell of a folder."""


def is_glob(path: Path) -> bool:
    """Whether the path is a pattern. A file whose own name has such characters goes before."""
    return glob.has_magic(str(path)) and not path.exists()


def gather_splits(path: Path) -> dict[Split, list[Path]]:
    """The files of each split: of train alone, but for a folder of several splits that `datasets` saved.

    Raises DataError.
    """
    if not os.path.isfile(path / _SAVED_SPLITS):
        return {"train": gather(path)}
    folders = [folder for folder in sorted(path.iterdir()) if (folder / _SAVED_DATASET).is_file()]
    splits = {split: _saved_files(folder) for folder in folders if (split := SPLIT_NAMES.get(folder.name))}
    if "train" not in splits:
        names = ", ".join(folder.name for folder in folders)
        raise DataError(f"{path}: none of its splits is called train; it has {names}: name one by train")
    return splits


def gather(path: Path) -> list[Path]:
    """The files, sorted by their paths. Raises DataError where there is none that is read."""
    try:
        return _gather(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)[:200]!r}: it cannot be read: {error}") from None


def _gather(path: Path) -> list[Path]:
    if is_glob(path):
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        found = [file for file in found if file.is_file()]
        if not found:
            raise DataError(f"{path}: no file matches the pattern")
        return _checked(path, [file for file in found if kind_of(file)], found)
    if not path.is_dir():
        check_file(path)
        return [path]
    if (path / _SAVED_SPLITS).is_file():
        names = ", ".join(sorted(folder.name for folder in path.iterdir() if folder.is_dir()))
        raise DataError(f"{path}: it holds several splits ({names}); name each by train, validation and test")
    if (path / _SAVED_DATASET).is_file():
        return _saved_files(path)
    everything = [file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path))]
    data = [file for file in everything if kind_of(file) and not _tells_of_folder(file)]
    return _checked(path, data, everything)


def _checked(path: Path, files: list[Path], everything: list[Path]) -> list[Path]:
    if not files:
        other = sorted({file.suffix for file in everything if file.suffix})
        holds = f"it holds {', '.join(other[:6])} files" if other else "it holds no files"
        raise DataError(f"{path}: nothing in it is read ({holds}); accepted: {ACCEPTED}")
    if len(files) > MAX_FILES:
        raise DataError(f"{path}: {len(files)} files are more than {MAX_FILES}; join them into larger ones")
    has_fields = {kind.format != "text" for file in files if (kind := kind_of(file))}
    if len(has_fields) > 1:
        kinds = ", ".join(sorted({"".join(file.suffixes[-1:]) for file in files}))
        raise DataError(
            f"{path}: it holds files of rows and files of text ({kinds}); give a glob of those that you mean"
        )
    for file in files:
        check_file(file)
    return sorted(files)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _tells_of_folder(file: Path) -> bool:
    kind = kind_of(file)
    return kind is not None and kind.format == "text" and file.name.lower().startswith(_ABOUT)


def _saved_files(folder: Path) -> list[Path]:
    """The files of a dataset that `datasets` saved, in the order that it states."""
    try:
        state = json.loads((folder / _SAVED_DATASET).read_text(encoding="utf-8"))
        files = [folder / str(item["filename"]) for item in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: it is no whole folder of save_to_disk: {_SAVED_DATASET}: {error}") from None
    if not files:
        raise DataError(f"{folder}: the dataset that was saved has no rows")
    for file in files:
        check_file(file)
    return files
