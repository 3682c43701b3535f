"""What a corpus of the catalogue is, whatever it comes from; each kind of source is a file of `corpora/sources`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from lorabench.core.catalog import Count, Entry, Name
from lorabench.core.progress import Progress
from lorabench.corpora.conversations import Row, format_of
from lorabench.corpora.references import CorpusReference

KEPT = "-near-duplicates-kept"
"""What is added to name and revision of a catalogue corpus whose near copies are kept: it has other documents."""

PREPARATION_VERSION = 5
"""Rises when the same texts give other splits or other facts about a document, or held-out text is drawn otherwise.

It is part of a corpus' revision, so that runs on other splits are other runs.
"""
UNMARKED_VERSION = 4
"""The version whose splits have the bare revision, as runs had it that were recorded before there was a mark."""

_DESCRIPTIVE = {"notes", "licence", "download_bytes", "approximate_bytes", "domain", "contaminates", "near_duplicates"}


@dataclass
class SourceTexts:
    """Texts by the splits that the source itself has (at least train), not yet cleaned."""

    texts: Mapping[str, Sequence[Row]]
    revision: str
    pinned: bool = True
    notes: list[str] = field(default_factory=list)
    format: str = "text"
    """Of the rows: `text`, or that of conversations."""
    more_train: Sequence[Row] = ()
    """Rows that are only trained on: no held-out split is made of them."""


class DatasetEntry(Entry):
    """A corpus before it is read. A kind of source adds its own fields, and defines how its texts are read."""

    format: str
    """What the files are, for people: parquet, csv, jsonl.gz, …"""
    domain: str | None
    synthetic: bool = False
    approximate_bytes: Count
    """Of text, all splits together."""
    contaminates: tuple[Name, ...] = ()
    """Models that were trained on this text, so that their scores on it flatter them."""
    near_duplicates: Literal["remove", "keep"] = "remove"
    """What is done with near copies of another split's documents."""

    read_by_plans: ClassVar[bool] = False
    """Whether a plan reads it, so that a mistake in it is found before anything runs."""

    @abstractmethod
    def expected_revision(self) -> str:
        """The revision that reading it here would give; `unpinned` where only the hub knows."""

    @abstractmethod
    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """The texts, fetching what is not here; of a source that is read in part, about `max_bytes` of training text.

        Raises DataError, DownloadError or DiskError.
        """

    def revision_of_documents(self, revision: str) -> str:
        """The revision of the documents that are made of a text of that revision."""
        kept = KEPT if self.near_duplicates == "keep" else ""
        marked = "" if PREPARATION_VERSION == UNMARKED_VERSION else f"-prepared-{PREPARATION_VERSION}"
        return revision + kept + marked

    def identity(self) -> Any:
        """Plain values that, with name and revision, tell its prepared corpus from all others."""
        return self.model_dump(mode="json", exclude=_DESCRIPTIVE)

    def keeping_near_duplicates(self) -> Self:
        """The same text with near copies kept, under a name of its own."""
        if self.near_duplicates == "keep":
            return self
        return self.model_copy(update={"near_duplicates": "keep", "name": self.name + KEPT})

    def pinned_reference(self, reference: str | CorpusReference) -> str | CorpusReference:
        """The reference to what this entry is; mostly as it was given."""
        return reference

    def drawn_for(self, max_train_bytes: int | None) -> Self:
        """The entry that is read for this budget, where a budget changes which documents it has; mostly itself."""
        return self

    def expected_format(self) -> str | None:
        """Of its rows, where that is known before they are read."""
        return None

    def bytes_to_read(self, max_train_bytes: int | None) -> int | None:
        """The `max_bytes` for `read` that leaves so many bytes for training; None: all, as for most sources."""
        return None

    def bytes_drawn(self, max_bytes: int | None) -> int:
        """Bytes of text that `read` keeps, all splits together, about."""
        return self.approximate_bytes

    def bytes_to_fetch(self, max_bytes: int | None) -> int:
        """What `read` downloads, about, where nothing is here yet."""
        return self.download_bytes


class WholeCorpus(DatasetEntry):
    """A corpus that lies on this machine, and is always read whole."""

    @abstractmethod
    def texts(self) -> Iterable[Row]:
        """Every text, or every conversation."""

    def read(self, max_bytes: int | None, progress: Progress | None = None) -> SourceTexts:
        """Every text, as training text of which the other splits are made."""
        if progress is not None:
            progress(f"reading {self.name}", 0, None)
        rows = list(self.texts())
        return SourceTexts({"train": rows}, self.expected_revision(), format=format_of(rows))
