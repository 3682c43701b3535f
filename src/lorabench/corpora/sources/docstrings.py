"""Corpora of the docstrings of installed packages."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import Annotated, Literal

from pydantic import Field

from lorabench.core.errors import DataError
from lorabench.corpora.entry import WholeCorpus
from lorabench.samplepack.installed import read_docstrings


class DocstringsCorpus(WholeCorpus):
    """The docstrings of some packages."""

    source: Literal["docstrings"]
    packages: Annotated[tuple[str, ...], Field(min_length=1)]

    def expected_format(self) -> str:
        """Plain text."""
        return "text"

    def expected_revision(self) -> str:
        """The packages with their versions. Raises DataError where one is not installed."""
        return versions(self.name, self.packages)

    def texts(self) -> Iterable[str]:
        """Every docstring."""
        return read_docstrings(self.packages)


def versions(corpus: str, packages: Iterable[str]) -> str:
    """The packages with their versions. Raises DataError, naming the corpus, where one is not installed."""
    return "+".join(f"{name}-{_version(corpus, name)}" for name in packages)


def _version(corpus: str, package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise DataError(f"dataset {corpus}: the package {package} is not installed; run scripts/setup.sh") from None


SOURCE = DocstringsCorpus
