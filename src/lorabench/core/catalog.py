"""Catalogues: YAML files of named entries, where each kind of source defines what its entries may hold."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorabench.core.errors import ConfigError, UnknownNameError, near_matches
from lorabench.core.home import user_path
from lorabench.core.plain_yaml import parse_yaml, show_value
from lorabench.core.registry import Registry

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]
RepositoryId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w./-]{0,199}$")]
HUB_ID = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@(?P<revision>[A-Za-z0-9][\w./-]{0,199}))?", re.ASCII
)
"""`owner/name` or `owner/name@revision`, as users name a repository of the hub."""
Count = Annotated[int, Field(ge=1)]
OWN_CATALOGUE = "LORABENCH_CATALOG"
"""The environment variable that names a catalogue of the user's own."""
OWN_NAME = "lorabench.yaml"
"""A catalogue of the user's own beside the experiment, in the working folder, or in the configuration folder."""
_experiment_folders: list[Path] = []


class Entry(BaseModel):
    """What entries of every catalogue have in common. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    source: str
    """The kind of source: the name of the file that describes it."""
    licence: str | None
    download_bytes: Annotated[int, Field(ge=0)]
    notes: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether two machines are sure to get the same thing."""
        return True

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        return "this machine"

    @property
    def shown_revision(self) -> str:
        """The revision, for people."""
        return "-"


class FromHub(BaseModel):
    """What entries of hub repositories have in common: mixed into an `Entry`."""

    repository: RepositoryId
    revision: Revision | None = None
    """A commit. Null: unpinned, the newest is taken and the record warns about it."""

    @property
    def pinned(self) -> bool:
        """Whether the catalogue names a commit."""
        return self.revision is not None

    @property
    def origin(self) -> str:
        """The repository."""
        return self.repository

    @property
    def shown_revision(self) -> str:
        """The commit, or that there is none."""
        return self.revision or "unpinned"

    def expected_revision(self) -> str:
        """The commit, where the catalogue names one."""
        return self.revision or "unpinned"


E = TypeVar("E", bound=Entry)


def look_beside(experiment: Path) -> None:
    """Let the catalogue beside an experiment file count for this process, in place of the last experiment's."""
    _experiment_folders[:] = [experiment.parent] if experiment.name != OWN_NAME else []


def own_catalogues() -> list[Path]:
    """The user's catalogues that are there, each once; the one that OWN_CATALOGUE names whether it is there or not."""
    configuration = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    folders = [*_experiment_folders, Path(), user_path(configuration) / "lorabench"]
    found = [folder / OWN_NAME for folder in folders if (folder / OWN_NAME).is_file()]
    named = os.environ.get(OWN_CATALOGUE)
    found += [user_path(named)] if named else []
    return list({path.resolve(): path for path in found}.values())


class Catalogue(Generic[E]):
    """The entries of lorabench's own file, and those of the user's catalogues."""

    def __init__(self, package: str, section: str, sources: Registry[type[E]], kind: str, otherwise: str) -> None:
        """The file is `<section>.yaml` in `package`; `section` is also its part of the user's catalogues.

        `kind` is what an entry is called in sentences, and `otherwise` what a name could be that is no entry's.
        """
        self._package = package
        self._section = section
        self._sources = sources
        self._kind = kind
        self._otherwise = otherwise
        self._own: tuple[list[tuple[Path, int]], dict[str, tuple[Path, E]]] = ([], {})

    @property
    def entries(self) -> dict[str, E]:
        """By name, in the order of the files. Raises ConfigError."""
        return self._shipped | {name: entry for name, (_, entry) in self._read_own().items()}

    def place_of(self, name: str) -> str | None:
        """The file of the user's that an entry stands in; None for those of lorabench."""
        found = self._read_own().get(name)
        return str(found[0]) if found else None

    @cached_property
    def _shipped(self) -> dict[str, E]:
        file = f"{self._section}.yaml"
        text = resources.files(self._package).joinpath(file).read_text(encoding="utf-8")
        return read_entries(text, self._sources, file)

    def _read_own(self) -> dict[str, tuple[Path, E]]:
        """The entries of the user's catalogues with their files, read again where a file has changed."""
        files = [(path.absolute(), path.stat().st_mtime_ns if path.is_file() else 0) for path in own_catalogues()]
        if files != self._own[0]:
            found: dict[str, tuple[Path, E]] = {}
            for path, _ in files:
                where = f"{path}: {self._section}"
                values = _beside(_read_own(path).get(self._section) or {}, path.parent)
                for name, entry in _check_entries(values, self._sources, where).items():
                    other = "lorabench" if name in self._shipped else found[name][0] if name in found else None
                    if other is not None:
                        raise ConfigError(f"{where}: {name}: {other} has an entry of that name; choose another")
                    found[name] = (path, entry)
            self._own = (files, found)
        return self._own[1]

    def get(self, name: str) -> E:
        """Raises UnknownNameError with near matches."""
        if name not in self.entries:
            raise UnknownNameError(
                f"{self._kind} {name!r} is neither a catalogue name nor {self._otherwise}."
                f"{near_matches(name, self.entries)} `lorabench {self._section}` lists the names"
            )
        return self.entries[name]


def read_entries(text: str, sources: Registry[type[E]], where: str) -> dict[str, E]:
    """The entries of a catalogue file: a mapping from name to fields, `source` among them.

    Each is checked by the class of its source. Raises ConfigError naming the file `where`, entry and field.
    """
    try:
        values = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    return _check_entries(values, sources, where)


def _check_entries(values: Any, sources: Registry[type[E]], where: str) -> dict[str, E]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: should be a mapping from name to entry")
    return {str(name): _read_entry(str(name), fields, sources, where) for name, fields in values.items()}


def _beside(entries: Any, folder: Path) -> Any:
    """The entries of a file in `folder`, with the relative paths of `path` and `splits` taken from there."""

    def placed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: placed(part) for key, part in value.items()}
        if isinstance(value, list):
            return [placed(part) for part in value]
        return str(folder / user_path(value)) if isinstance(value, str) and value else value

    if not isinstance(entries, Mapping):
        return entries
    return {
        name: {key: placed(value) if _is_path(key, fields) else value for key, value in fields.items()}
        if isinstance(fields, Mapping)
        else fields
        for name, fields in entries.items()
    }


def _is_path(key: Any, fields: Mapping[Any, Any]) -> bool:
    """Whether a field holds paths on this machine: those of the hub are its own."""
    return key in ("path", "splits") and fields.get("source") in ("file", "folder")


def _read_own(path: Path) -> Mapping[str, Any]:
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{path}: the catalogue cannot be read: {reason}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: {show_value(values)} is not accepted; a catalogue holds models and datasets")
    for key in values:
        if key not in ("models", "datasets"):
            raise ConfigError(f"{path}: {show_value(key)} is not accepted; a catalogue holds models and datasets")
    return values


def _read_entry(name: str, fields: Any, sources: Registry[type[E]], where: str) -> E:
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{where}: {name!r} should be a mapping")
    if "source" not in fields:
        raise ConfigError(f"{where}: {name}: source: it is missing; accepted: {', '.join(sources.all())}")
    try:
        return sources.get(str(fields["source"]))(name=name, **fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "entry"
        raise ConfigError(f"{where}: {name}: {field}: {first['msg']}") from None
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"{where}: {name}: {error}") from None
