"""The catalogue of corpora: `datasets.yaml`, and the user's own; adding an entry of a known source needs no code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lorabench.core.catalog import Catalogue
from lorabench.core.errors import DataError
from lorabench.core.registry import Registry
from lorabench.corpora.by_hub_id import HubIdCorpus
from lorabench.corpora.entry import DatasetEntry
from lorabench.corpora.references import CorpusReference, parts_of
from lorabench.corpora.sources.file import FileCorpus

SOURCES: Registry[type[DatasetEntry]] = Registry("lorabench.corpora.sources", "SOURCE", "source of corpora")


DATASETS = Catalogue("lorabench.corpora", "datasets", SOURCES, "dataset", "a file, a folder or a hub id")


def list_datasets() -> list[DatasetEntry]:
    """All corpora, in the file's order."""
    return list(DATASETS.entries.values())


def get_dataset(name: str) -> DatasetEntry:
    """The corpus's entry. Raises UnknownNameError with near matches."""
    return DATASETS.get(name)


def find_corpus(
    reference: str | os.PathLike[str] | CorpusReference, *, text_field: str = "text", max_train_bytes: int | None = None
) -> DatasetEntry:
    """What a reference means: a catalogue name, files, a hub id, or one of them by its parts; drawn for a budget.

    `text_field` is the field of rows that holds the text, where the reference says none. Raises UnknownNameError, or
    DataError for a file that cannot be used.
    """
    parts = existing(parts_of(reference))
    if parts.files:
        if parts.name in DATASETS.entries:
            raise DataError(f"{parts}: it cannot be called {parts.name}, which is a corpus of the catalogue")
        return FileCorpus.of(
            parts.files,
            is_split=parts.path is None,
            name=parts.name,
            text_field=parts.text or text_field,
            near_duplicates=parts.near_duplicates,
            rows=parts.format or ("text" if parts.text else None),
            max_train_bytes=max_train_bytes,
        )
    if parts.is_hub_id:
        return HubIdCorpus.of(parts, parts.text or text_field, list_datasets())
    entry = get_dataset(str(parts.name))
    entry = entry.keeping_near_duplicates() if parts.near_duplicates == "keep" else entry
    return entry.drawn_for(max_train_bytes)


def existing(parts: CorpusReference) -> CorpusReference:
    """The parts, of a name that is no catalogue's but that of a file or folder here as its path.

    Raises DataError for addresses, which are not read.
    """
    for path in (path for paths in parts.files.values() for path in paths):
        if "://" in path:
            raise DataError(f"{path}: addresses are not read; download it, or name a data set of the hub as owner/name")
    if parts.name == "-" and not parts.files:
        raise DataError("-: standard input is read by `lorabench evaluate --data -` alone; save it to a file")
    bare = not parts.files and parts.name is not None and parts.name not in DATASETS.entries
    return parts.model_copy(update={"name": None, "path": parts.name}) if bare and _exists(parts.name) else parts


def _exists(name: str | None) -> bool:
    try:
        return bool(name) and Path(str(name)).exists()
    except (OSError, ValueError):
        return False


def dataset_rows() -> list[dict[str, Any]]:
    """What `lorabench datasets` shows, a row per corpus."""
    return [
        {
            "name": entry.name,
            "domain": entry.domain,
            "source": entry.source,
            "comes_from": entry.origin,
            "revision": entry.shown_revision,
            "licence": entry.licence,
            "synthetic": "yes" if entry.synthetic else "no",
            "text_bytes": entry.approximate_bytes,
            "download_bytes": entry.download_bytes,
            "contaminates": ", ".join(entry.contaminates) or None,
            "notes": entry.notes,
            "listed_in": DATASETS.place_of(entry.name) or "lorabench",
        }
        for entry in list_datasets()
    ]
