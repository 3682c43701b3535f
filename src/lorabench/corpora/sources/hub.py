"""Corpora of the Hugging Face hub, of which only as much is fetched as a budget takes."""

from __future__ import annotations

from lorabench.core.progress import Progress
from lorabench.corpora.entry import SourceTexts
from lorabench.corpora.hub_rows import HubRows
from lorabench.corpora.hub_stream import STEP_BYTES, bytes_drawn, load_hub_documents
from lorabench.corpora.window import WINDOW_FACTOR

HEADROOM = 1.4
"""What is fetched per byte of training text: the held-out splits and what cleaning removes come out of it."""


class HubCorpus(HubRows):
    """Rows of a repository."""

    def bytes_to_read(self, max_train_bytes: int | None) -> int | None:
        """In steps of STEP_BYTES, with room for what is held out and removed."""
        return None if max_train_bytes is None else -int(-HEADROOM * max_train_bytes // STEP_BYTES) * STEP_BYTES

    def bytes_drawn(self, max_bytes: int | None) -> int:
        """Bytes of text that `read` keeps, all splits together, about."""
        return min(self.approximate_bytes, bytes_drawn(self, max_bytes))

    def bytes_to_fetch(self, max_bytes: int | None) -> int:
        """The window that is drawn from, compressed as the repository is."""
        drawn = self.bytes_drawn(max_bytes)
        window = round(WINDOW_FACTOR * drawn * self.download_bytes / self.approximate_bytes)
        return min(self.download_bytes, window)

    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """About `max_bytes` of training text (None: all), and the repository's held-out splits.

        Raises DataError, DownloadError or DiskError.
        """
        read = load_hub_documents(self, max_bytes=max_bytes, progress=progress)
        notes = [f"{split}: {sentence}" for split, sentence in read.sampling.items()]
        if read.parquet_branch:
            notes.append("read from the hub's own Parquet conversion")
        if not read.pinned:
            notes.append("not pinned to a revision: another day's newest commit may hold other text")
        return SourceTexts(read.texts, read.revision, read.pinned, notes, read.format, read.more_train)


SOURCE = HubCorpus
