"""A corpus on every machine: the source code of Python's standard library."""

from __future__ import annotations

import platform
from typing import Literal

from lorabench.core.progress import Progress
from lorabench.corpora.entry import DatasetEntry, SourceTexts
from lorabench.samplepack.installed import read_standard_library


class StandardLibraryCorpus(DatasetEntry):
    """The modules of the Python that runs."""

    source: Literal["stdlib"]

    def expected_revision(self) -> str:
        """Python's version."""
        return f"python-{platform.python_version()}"

    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """Every module."""
        if progress is not None:
            progress(f"reading {self.name}", 0, None)
        return SourceTexts({"train": list(read_standard_library())}, self.expected_revision(), pinned=True)


SOURCE = StandardLibraryCorpus
