"""How an experiment, a command or a record names a corpus: a catalogue name, a path, or its parts."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lorabench.core.home import user_path
from lorabench.experiment.schema import CorpusReference

SUFFIXES = (".txt", ".jsonl", ".parquet")


def is_path(name_or_path: str) -> bool:
    """Whether a reference means a file rather than a catalogue name."""
    looks_like_one = "/" in name_or_path or "\\" in name_or_path
    return looks_like_one or Path(name_or_path).suffix.lower() in SUFFIXES


def parts_of(reference: str | os.PathLike[str] | CorpusReference) -> CorpusReference:
    """The reference by its parts: a name without a path is the catalogue's."""
    if isinstance(reference, CorpusReference):
        return reference
    if isinstance(reference, str) and not is_path(reference):
        return CorpusReference(name=reference)
    return CorpusReference(path=os.fspath(reference))


def write_reference(reference: str | CorpusReference) -> str | None:
    """The reference as a record keeps it: an absolute path, JSON of several parts, or None for a catalogue name."""
    parts = parts_of(reference)
    if parts.path is not None:
        parts = parts.model_copy(update={"path": str(user_path(parts.path).absolute())})
    chosen = parts.model_dump(exclude_defaults=True)
    if len(chosen) > 1:
        return json.dumps(chosen, ensure_ascii=False)
    return parts.path


def read_reference(kept: str) -> str | CorpusReference:
    """What `write_reference` wrote, or a catalogue name."""
    return CorpusReference(**json.loads(kept)) if kept.startswith("{") else kept
