"""How an experiment, a command or a record names a corpus: a catalogue name, a path, a hub id, or its parts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from glob import has_magic
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ValidationError, field_validator

from lorabench.core.catalog import HUB_ID
from lorabench.core.errors import ConfigError
from lorabench.core.home import user_path
from lorabench.core.plain_yaml import show_value
from lorabench.core.revisions import safe_name
from lorabench.core.settings import Frozen, check_reference, refuse_key, tidy
from lorabench.corpora.conversations import Format
from lorabench.corpora.documents import Split
from lorabench.corpora.fields import TextFields, check_fields
from lorabench.corpora.rows.kinds import kind_of

Paths = str | tuple[str, ...]


class CorpusReference(Frozen):
    """A corpus by its parts: an entry of `datasets` or `also_on` that is a mapping."""

    name: str | None = None
    """Of a catalogue corpus, or the hub's id; with path or train, what those files are called."""
    path: str | None = None
    """A file, a folder or a glob, of which the splits are made."""
    train: Paths | None = None
    """Files of this split, where the text is split already; each a path, folder or glob."""
    validation: Paths | None = None
    test: Paths | None = None
    text: TextFields | None = None
    """Fields of the rows that hold the text; null: the experiment's `text_field`."""
    config: str | None = None
    """Of a data set on the hub, as are the next three: its configuration."""
    split: str | None = None
    """The repository's split of which all of ours are made; in place of `splits`."""
    splits: dict[Split, str] | None = None
    """Our split -> the repository's."""
    revision: str | None = None
    near_duplicates: Literal["remove", "keep"] = "remove"
    """What is done with near copies of another split's documents; kept ones are counted and noted."""
    format: Format | None = None
    """Of the rows of one's own files or of the hub; null: found from their fields."""

    @field_validator("text", mode="before")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        return None if value is None else check_fields(value)

    def __str__(self) -> str:
        return str(self.path or self.name or self.train)

    @property
    def files(self) -> dict[Split, tuple[str, ...]]:
        """The paths of one's own files by split; train alone where the splits are made here. None of other corpora."""
        given: dict[Split, Paths | None] = {
            "train": self.path or self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return {split: (paths,) if isinstance(paths, str) else paths for split, paths in given.items() if paths}

    @property
    def chosen_splits(self) -> dict[Split, str]:
        """Our split -> the repository's, where the user said it."""
        return {"train": self.split} if self.split else self.splits or {}

    @property
    def is_hub_id(self) -> bool:
        """Whether it is a data set on the hub."""
        return not self.files and self.name is not None and HUB_ID.fullmatch(self.name) is not None

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """The same with its paths changed."""
        changed: dict[str, Paths] = {}
        for key in ("path", "train", "validation", "test"):
            paths = getattr(self, key)
            if paths:
                changed[key] = change(paths) if isinstance(paths, str) else tuple(map(change, paths))
        return self.model_copy(update=changed)


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
    _check_parts(parts, where)
    return parts


def _check_parts(parts: CorpusReference, where: str) -> None:
    """Raise ConfigError where the parts do not go together."""
    if parts.name is None and not parts.files:
        raise ConfigError(f"{where}: a mapping needs name (of the catalogue or the hub) or path or train (of files)")
    if parts.path is not None and (parts.train or parts.validation or parts.test):
        raise ConfigError(
            f"{where}: path and the files of splits exclude one another; give path, or train with the rest"
        )
    if parts.files and "train" not in parts.files:
        raise ConfigError(
            f"{where}: {', '.join(parts.files)} without train is not accepted; name the files of train too"
        )
    for key, text in (("name", parts.name), *((split, path) for split, paths in parts.files.items() for path in paths)):
        try:
            check_reference(text or "-")
        except ValueError as error:
            named = "path" if key == "train" and parts.path else key
            raise ConfigError(f"{where}.{named}: {show_value(text)} is not accepted; {error}") from None
    if parts.format is not None and not parts.files and not parts.is_hub_id:
        raise ConfigError(
            f"{where}.format: the catalogue says what the rows of {parts.name} are; give it with files of your own"
        )
    if parts.split is not None and parts.splits is not None:
        raise ConfigError(f"{where}: split and splits exclude one another; give split, or each of ours under splits")
    if parts.files and parts.name is not None and parts.name != safe_name(parts.name):
        raise ConfigError(
            f"{where}.name: {show_value(parts.name)} is not accepted; should be letters, digits, dots, dashes and "
            f"underscores, such as {safe_name(parts.name)}"
        )
    of_hub = next((key for key in ("config", "split", "splits", "revision") if getattr(parts, key) is not None), None)
    if of_hub and not parts.is_hub_id:
        raise ConfigError(f"{where}.{of_hub}: only a data set on the hub has it; give it with name: owner/name")
    if parts.text is not None and not parts.files and not parts.is_hub_id:
        raise ConfigError(
            f"{where}.text: the catalogue says what is text of {parts.name}; give it with files of your own"
        )


def is_path(reference: str) -> bool:
    """Whether a reference means files rather than a catalogue name or the hub's; what exists goes before the hub."""
    if HUB_ID.fullmatch(reference) and kind_of(Path(reference)) is None:
        return Path(reference).exists()
    looks_like_one = "/" in reference or "\\" in reference or has_magic(reference)
    return looks_like_one or kind_of(Path(reference)) is not None


def parts_of(reference: str | os.PathLike[str] | CorpusReference) -> CorpusReference:
    """The reference by its parts: a name without a path is the catalogue's."""
    if isinstance(reference, CorpusReference):
        return reference
    if isinstance(reference, str) and not is_path(reference):
        on_hub = HUB_ID.fullmatch(reference)
        if on_hub is not None:
            return CorpusReference(name=on_hub["repository"], revision=on_hub["revision"])
        return CorpusReference(name=reference)
    return CorpusReference(path=os.fspath(reference))


def absolute(path: str) -> str:
    """The path from the root, with `~` put in."""
    return str(user_path(path).absolute())


def write_reference(reference: str | CorpusReference) -> str | None:
    """The reference as a record keeps it: an absolute path, JSON of several parts, or None for a catalogue name."""
    parts = parts_of(reference).with_paths(absolute)
    chosen = parts.model_dump(exclude_defaults=True)
    if len(chosen) > 1 or parts.is_hub_id or parts.train:
        return json.dumps(chosen, ensure_ascii=False)
    return parts.path


def read_reference(kept: str) -> str | CorpusReference:
    """What `write_reference` wrote, or a catalogue name."""
    return CorpusReference(**json.loads(kept)) if kept.startswith("{") else kept
