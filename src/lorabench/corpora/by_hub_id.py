"""Corpora of the hub by their id, `owner/name` or `owner/name@revision`, without an entry in a catalogue."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from lorabench.core.errors import DataError
from lorabench.core.hub import Repository, explained, is_offline, resolve
from lorabench.core.revisions import safe_name
from lorabench.corpora.documents import Split
from lorabench.corpora.fields import DEFAULT_FIELD, TextFields, columns_of, find_field, read_text
from lorabench.corpora.hub_stream import cached_folder
from lorabench.corpora.references import CorpusReference, parts_of
from lorabench.corpora.rows.gather import SPLIT_NAMES
from lorabench.corpora.rows.kinds import kind_of
from lorabench.corpora.sources.hub import HubCorpus

_COMPRESSION = 2
"""Bytes of text that a byte of a compressed or Parquet file is taken to hold, for plans."""


class HubIdCorpus(HubCorpus):
    """A repository that no catalogue describes: its splits and fields are found, or given with its id.

    What is read is the commit that the hub names when the experiment is planned; so the revision is one.
    """

    splits: dict[Split, str] = Field(default_factory=dict)
    """Our split -> the repository's; empty: those that it has."""
    text: TextFields | None = None
    """None: found from the fields."""

    @classmethod
    def of(cls, parts: CorpusReference, text_field: TextFields) -> HubIdCorpus:
        """The corpus of a hub id. Raises DataError or DownloadError where it is neither on the hub nor here."""
        repository = Repository("dataset", str(parts.name), parts.revision)
        commit, sizes, licence = _facts(repository)
        text = parts.text or (None if text_field == DEFAULT_FIELD else text_field)
        download = sum(size for _, size in sizes)
        corpus = cls.model_construct(  # without validation, as names of catalogue entries are stricter
            name=safe_name("-".join(filter(None, (repository.id, parts.config)))),
            source="hub",
            repository=repository.id,
            revision=commit,
            config=parts.config,
            splits=parts.splits or {},
            text=text,
            text_fields=tuple(columns_of(text)) if text else (),
            format="hub",
            licence=licence,
            domain=None,
            download_bytes=download,
            approximate_bytes=max(1, sum(size * _factor(path) for path, size in sizes)),
        )
        return corpus.keeping_near_duplicates() if parts.near_duplicates == "keep" else corpus

    def pinned_reference(self, reference: str | CorpusReference) -> str | CorpusReference:
        """The same at the commit that was planned, so that this is what runs read."""
        return parts_of(reference).model_copy(update={"revision": self.revision})

    def revision_of_documents(self, revision: str) -> str:
        """The commit; with a mark where splits or fields were chosen."""
        chosen = {"splits": self.splits or None, "text": self.text}
        if any(chosen.values()):
            revision += f"-{hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]}"
        return super().revision_of_documents(revision)

    def splits_among(self, names: Sequence[str]) -> Mapping[Split, str]:
        """Those that were chosen, else the repository's train, validation and test by what they are called."""
        if self.splits:
            return self.splits
        found = {split: name for name in reversed(names) if (split := SPLIT_NAMES.get(name))}
        if "train" not in found and len(names) == 1:
            found = {"train": names[0]}
        if "train" not in found:
            raise DataError(
                f"dataset {self.name}: {self.repository} has no split called train; it has "
                f"{', '.join(map(repr, names))}: say which by splits: {{train: …}}"
            )
        return found

    def texts_of(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """The text of each row that has some. Raises DataError where it is not clear which field it is."""
        rows = iter(rows)
        first = next(rows, None)
        if first is None:
            return
        where = f"dataset {self.name}: the first row of {self.repository}"
        fields = self.text or find_field(first, where)
        for row in itertools.chain([first], rows):
            text = read_text(row, fields, f"dataset {self.name}: a row of {self.repository}")
            if text.strip():
                yield text


Sizes = tuple[tuple[str, int], ...]


@lru_cache(maxsize=256)
def _facts(repository: Repository) -> tuple[str, Sizes, str | None]:
    """Commit, data files with their bytes, and licence where it is known; offline from the hub's cache."""
    if is_offline():
        with explained(repository):
            folder = cached_folder(repository)
        files = [file for file in folder.rglob("*") if file.is_file()]
        return folder.name, tuple((str(file), file.stat().st_size) for file in files if _is_data(file.name)), None
    try:
        resolved = resolve(repository)
    except DataError as error:
        raise DataError(f"{error}; nor is there a file or folder {repository.id} here") from None
    sizes = tuple((path, size) for path, size in resolved.files if size and _is_data(path))
    return resolved.commit, sizes, resolved.licence


def _is_data(path: str) -> bool:
    kind = kind_of(Path(path))
    return kind is not None and not path.lower().endswith(".md")


def _factor(path: str) -> int:
    kind = kind_of(Path(path))
    return _COMPRESSION if kind and (kind.compression or kind.format == "parquet") else 1
