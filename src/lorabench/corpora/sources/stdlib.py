"""A corpus on every machine: the source code of Python's standard library."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Literal

from lorabench.corpora.entry import WholeCorpus
from lorabench.samplepack.installed import read_standard_library


class StandardLibraryCorpus(WholeCorpus):
    """The modules of the Python that runs."""

    source: Literal["stdlib"]

    def expected_format(self) -> str:
        """Plain text."""
        return "text"

    def expected_revision(self) -> str:
        """Python's version."""
        return f"python-{platform.python_version()}"

    def texts(self) -> Iterable[str]:
        """Every module."""
        return read_standard_library()


SOURCE = StandardLibraryCorpus
