"""How an experiment, a command or a record names a corpus: a catalogue name, a path, or its parts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lorabench.core.errors import ConfigError
from lorabench.core.home import user_path
from lorabench.core.plain_yaml import show_value
from lorabench.core.revisions import safe_name
from lorabench.core.settings import Frozen, check_reference, refuse_key, tidy

SUFFIXES = (".txt", ".jsonl", ".parquet")


class CorpusReference(Frozen):
    """A corpus by its parts: an entry of `datasets` or `also_on` that is a mapping."""

    name: str | None = None
    """Of a catalogue corpus; with a path, what that file is called in place of its own name."""
    path: str | None = None
    near_duplicates: Literal["remove", "keep"] = "remove"
    """What is done with near copies of another split's documents; kept ones are counted and noted."""

    def __str__(self) -> str:
        return str(self.path or self.name)


def build_reference(values: Mapping[Any, Any], where: str) -> CorpusReference:
    """Check a corpus given as a mapping; `where` is its key, for messages. Raises ConfigError."""
    for key in values:
        if key not in CorpusReference.model_fields:
            refuse_key(where, key, CorpusReference)
    try:
        parts = CorpusReference(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = f"{where}.{problem['loc'][0]}"
        raise ConfigError(f"{key}: {show_value(problem['input'])} is not accepted; {tidy(problem['msg'])}") from None
    if parts.name is None and parts.path is None:
        raise ConfigError(f"{where}: a mapping needs name (of a catalogue corpus) or path (of a file)")
    for key, text in (("name", parts.name), ("path", parts.path)):
        try:
            check_reference(text or "-")
        except ValueError as error:
            raise ConfigError(f"{where}.{key}: {show_value(text)} is not accepted; {error}") from None
    if parts.path is not None and parts.name is not None and parts.name != safe_name(parts.name):
        raise ConfigError(
            f"{where}.name: {show_value(parts.name)} is not accepted; should be letters, digits, dots, dashes and "
            f"underscores, such as {safe_name(parts.name)}"
        )
    return parts


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
