"""The catalogue of corpora: `datasets.yaml`, and the user's own; adding an entry of a known source needs no code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lorabench.core.catalog import Catalogue
from lorabench.core.errors import DataError
from lorabench.core.registry import Registry
from lorabench.corpora.entry import DatasetEntry
from lorabench.corpora.references import CorpusReference, parts_of
from lorabench.corpora.sources.file import FileCorpus

SOURCES: Registry[type[DatasetEntry]] = Registry("lorabench.corpora.sources", "SOURCE", "source of corpora")


DATASETS = Catalogue("lorabench.corpora", "datasets", SOURCES, "dataset", "a .txt, .jsonl or .parquet file")


def list_datasets() -> list[DatasetEntry]:
    """All corpora, in the file's order."""
    return list(DATASETS.entries.values())


def get_dataset(name: str) -> DatasetEntry:
    """The corpus's entry. Raises UnknownNameError with near matches."""
    return DATASETS.get(name)


def find_corpus(reference: str | os.PathLike[str] | CorpusReference, *, text_field: str = "text") -> DatasetEntry:
    """What a reference means: a catalogue name, a file, or one of them by its parts.

    `text_field` is the field of a .jsonl or .parquet file that holds the text. Raises UnknownNameError, or DataError
    for a file that cannot be used.
    """
    parts = parts_of(reference)
    if parts.path is None:
        entry = get_dataset(str(parts.name))
        return entry.keeping_near_duplicates() if parts.near_duplicates == "keep" else entry
    if parts.name in DATASETS.entries:
        raise DataError(f"{parts.path}: it cannot be called {parts.name}, which is a corpus of the catalogue")
    return FileCorpus.of(
        Path(parts.path), name=parts.name, text_field=text_field, near_duplicates=parts.near_duplicates
    )


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
        }
        for entry in list_datasets()
    ]
