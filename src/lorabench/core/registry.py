"""Things of which each kind is one file: found in a package's files, in installed plugins, and where code adds them.

A new file in the package needs no other change. A plugin is any installed package with an entry point in the group that
is called like the package here, such as `lorabench.trackers.kinds`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cached_property
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from lorabench.core.errors import ConfigError, near_matches

Kind = TypeVar("Kind")


class Registry(Generic[Kind]):
    """The kinds of one thing, by name.

    `package` is the dotted name of the package whose files each hold a kind, under the name `attribute`; the file's
    name is the kind's. `what` names the thing in error sentences. Files are imported when the first kind is asked for.
    """

    def __init__(self, package: str, attribute: str, what: str) -> None:
        self.package = package
        self.attribute = attribute
        self.what = what
        self._added: dict[str, Kind] = {}

    def add(self, name: str, kind: Kind) -> None:
        """Take a kind from outside the package. Raises ConfigError where the name is taken."""
        if name in self:
            raise ConfigError(f"{self.what} {name!r} exists already; choose another name")
        self._added[name] = kind

    def remove(self, name: str) -> None:
        """Forget a kind that was added."""
        del self._added[name]

    def all(self) -> dict[str, Kind]:
        """Every kind by name: those of the package sorted by name, then plugins', then what was added."""
        return self._own | self._plugins | self._added

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._added or name in self._plugins

    def get(self, name: str) -> Kind:
        """The kind of that name. Raises ConfigError with what is accepted."""
        found = self._own.get(name) or self._added.get(name)  # plugins are looked for only where they are needed
        if found is None:
            kinds = self.all()
            if name not in kinds:
                raise ConfigError(
                    f"there is no {self.what} {name!r}; accepted: {', '.join(kinds)}.{near_matches(name, kinds)}"
                )
            found = kinds[name]
        return found

    @cached_property
    def _own(self) -> dict[str, Kind]:
        folder = importlib.import_module(self.package).__path__
        names = sorted(module.name for module in pkgutil.iter_modules(folder))
        found = {name: vars(importlib.import_module(f"{self.package}.{name}")) for name in names}
        return {name: values[self.attribute] for name, values in found.items() if self.attribute in values}

    @cached_property
    def _plugins(self) -> dict[str, Kind]:
        return {point.name: point.load() for point in entry_points(group=self.package) if point.name not in self._own}
