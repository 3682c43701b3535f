"""What a corpus of the catalogue is, whatever it comes from; each kind of source is a file of `corpora/sources`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from lorabench.core.catalog import Count, Entry, Name
from lorabench.core.progress import Progress


@dataclass
class SourceTexts:
    """Texts by the splits that the source itself has (at least train), not yet cleaned."""

    texts: dict[str, list[str]]
    revision: str
    pinned: bool
    notes: list[str] = field(default_factory=list)


class DatasetEntry(Entry):
    """A corpus. A kind of source adds its own fields, and defines how its texts are read."""

    format: str
    """What the files are, for people: parquet, csv, jsonl.gz, …"""
    domain: str
    synthetic: bool = False
    approximate_bytes: Count
    """Of text, all splits together."""
    contaminates: tuple[Name, ...] = ()
    """Models that were trained on this text, so that their scores on it flatter them."""

    @abstractmethod
    def expected_revision(self) -> str:
        """The revision that reading it here would give; `unpinned` where only the hub knows."""

    @abstractmethod
    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """The texts, fetching what is not here; of a source that is read in part, about `max_bytes` of training text.

        Raises DataError, DownloadError or DiskError.
        """

    def bytes_to_read(self, max_train_bytes: int | None) -> int | None:
        """The `max_bytes` for `read` that leaves so many bytes for training; None: all, as for most sources."""
        return None

    def bytes_drawn(self, max_bytes: int | None) -> int:
        """Bytes of text that `read` keeps, all splits together, about."""
        return self.approximate_bytes

    def bytes_to_fetch(self, max_bytes: int | None) -> int:
        """What `read` downloads, about, where nothing is here yet."""
        return self.download_bytes
