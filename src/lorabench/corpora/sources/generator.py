"""A corpus that is written when it is read: stories out of a grammar."""

from __future__ import annotations

from typing import Literal

from lorabench.core.progress import Progress
from lorabench.corpora.entry import DatasetEntry, SourceTexts
from lorabench.samplepack.stories import GENERATOR_VERSION, write_stories


class GeneratedCorpus(DatasetEntry):
    """The stories, the same on every machine."""

    source: Literal["generator"]

    def expected_revision(self) -> str:
        """The generator's version."""
        return f"generator-{GENERATOR_VERSION}"

    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """Every story."""
        if progress is not None:
            progress(f"reading {self.name}", 0, None)
        return SourceTexts({"train": list(write_stories())}, self.expected_revision(), pinned=True)


SOURCE = GeneratedCorpus
