"""Corpora of the docstrings of installed packages."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated, Literal

from pydantic import Field

from lorabench.core.errors import DataError
from lorabench.core.progress import Progress
from lorabench.corpora.entry import DatasetEntry, SourceTexts
from lorabench.samplepack.installed import read_docstrings


class DocstringsCorpus(DatasetEntry):
    """The docstrings of some packages."""

    source: Literal["docstrings"]
    packages: Annotated[tuple[str, ...], Field(min_length=1)]

    def expected_revision(self) -> str:
        """The packages with their versions. Raises DataError where one is not installed."""
        return "+".join(f"{name}-{self._version(name)}" for name in self.packages)

    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """Every docstring. Raises DataError."""
        if progress is not None:
            progress(f"reading {self.name}", 0, None)
        return SourceTexts({"train": list(read_docstrings(self.packages))}, self.expected_revision(), pinned=True)

    def _version(self, package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            raise DataError(
                f"dataset {self.name}: the package {package} is not installed; run scripts/setup.sh"
            ) from None


SOURCE = DocstringsCorpus
