"""Corpora of the hub by their id, `owner/name` or `owner/name@revision`, without an entry in a catalogue."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from lorabench.core.errors import DataError
from lorabench.core.hub import Repository, explained, is_offline, resolve
from lorabench.core.hub_memory import keep, kept
from lorabench.core.revisions import safe_name
from lorabench.corpora.conversations import Format, Row, find_format
from lorabench.corpora.documents import Split
from lorabench.corpora.entry import DatasetEntry
from lorabench.corpora.fields import DEFAULT_FIELD, TextFields, columns_of
from lorabench.corpora.files import reading_of
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
    columns: tuple[str, ...] = Field(default=(), exclude=True)
    """Of its rows, where its card names them; no part of what it is."""

    @classmethod
    def of(cls, parts: CorpusReference, text_field: TextFields, known: Sequence[DatasetEntry] = ()) -> HubIdCorpus:
        """The corpus of a hub id; `known` are entries of a catalogue: what one says of the same repository holds here.

        Raises DataError or DownloadError where it is neither on the hub nor here.
        """
        repository = Repository("dataset", str(parts.name), parts.revision)
        facts = _facts(repository)
        same = [entry for entry in known if isinstance(entry, HubCorpus) and entry.repository == repository.id]
        text = parts.text or (None if text_field == DEFAULT_FIELD else text_field)
        download = sum(size for _, size in facts.sizes)
        corpus = cls.model_construct(  # without validation, as names of catalogue entries are stricter
            name=safe_name("-".join(filter(None, (repository.id, parts.config)))),
            source="hub",
            repository=repository.id,
            revision=facts.commit,
            config=parts.config,
            splits=parts.chosen_splits,
            text=text,
            rows=parts.format,
            text_fields=tuple(columns_of(text)) if text else (),
            columns=tuple(facts.columns.get(parts.config or "default", ())),
            format="hub",
            licence=facts.licence or next((entry.licence for entry in same), None),
            domain=next((entry.domain for entry in same), None),
            synthetic=any(entry.synthetic for entry in same),
            contaminates=tuple(dict.fromkeys(name for entry in same for name in entry.contaminates)),
            download_bytes=download,
            approximate_bytes=max(1, sum(size * _factor(path) for path, size in facts.sizes)),
        )
        return corpus.keeping_near_duplicates() if parts.near_duplicates == "keep" else corpus

    def pinned_reference(self, reference: str | CorpusReference) -> str | CorpusReference:
        """The same at the commit that was planned, so that this is what runs read."""
        return parts_of(reference).model_copy(update={"revision": self.revision})

    def revision_of_documents(self, revision: str) -> str:
        """The commit; with a mark where splits, fields or a format were chosen."""
        chosen: dict[str, Any] = {"splits": self.splits or None, "text": self.text}
        if self.rows is not None:
            chosen["rows"] = self.rows
        if any(chosen.values()):
            revision += f"-{hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]}"
        return super().revision_of_documents(revision)

    def splits_among(self, names: Sequence[str]) -> Mapping[Split, str]:
        """Those that were chosen, else the repository's train, validation and test by what they are called."""
        if self.splits:
            return super().splits_among(names)
        found = {split: name for name in reversed(names) if (split := SPLIT_NAMES.get(name))}
        if "train" not in found and len(names) == 1:
            found = {"train": names[0]}
        if "train" not in found:
            raise DataError(
                f"dataset {self.name}: {self.repository} has no split called train; it has "
                f"{', '.join(map(repr, names))}: say which by splits: {{train: …}}"
            )
        return found

    def expected_format(self) -> str | None:
        """As it was given, else by the columns that its card names."""
        return self.rows or (None if self.text or not self.columns else find_format(self.columns))

    def read_rows(self, rows: Iterable[Mapping[str, Any]]) -> tuple[Format, Iterator[Row]]:
        """The rows' format, given or found from the first one's fields, and what is read of each. Raises DataError."""
        rows = iter(rows)
        first = next(rows, None)
        if first is None:
            return self.rows or "text", iter(())
        where = f"dataset {self.name}: the first row of {self.repository}"
        reading = reading_of((where, first), self.text or DEFAULT_FIELD, self.rows or ("text" if self.text else None))
        return reading.format, self.read_as(reading, itertools.chain([first], rows))


@dataclass(frozen=True)
class _Facts:
    """What is known of a repository without reading its rows."""

    commit: str
    sizes: tuple[tuple[str, int], ...]
    """Data files with their bytes."""
    licence: str | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By configuration."""


@lru_cache(maxsize=256)
def _facts(repository: Repository) -> _Facts:
    """As the hub says it; offline as it was last said, or from the hub's own cache."""
    asked = f"facts {repository.revision or 'main'}"
    if is_offline():
        values = kept(repository, asked)
        return _Facts(**values) if isinstance(values, dict) else _cached_facts(repository)
    try:
        resolved = resolve(repository)
    except DataError as error:
        raise DataError(f"{error}; nor is there a file or folder {repository.id} here") from None
    sizes = tuple((path, size) for path, size in resolved.files if size and _is_data(path))
    facts = _Facts(resolved.commit, sizes, resolved.licence, resolved.columns)
    for name in {asked, f"facts {resolved.commit}"}:
        keep(repository, name, asdict(facts))
    return facts


def _cached_facts(repository: Repository) -> _Facts:
    with explained(repository):
        folder = cached_folder(repository)
    files = [file for file in folder.rglob("*") if file.is_file()]
    return _Facts(folder.name, tuple((str(file), file.stat().st_size) for file in files if _is_data(file.name)))


def _is_data(path: str) -> bool:
    kind = kind_of(Path(path))
    return kind is not None and not path.lower().endswith(".md")


def _factor(path: str) -> int:
    kind = kind_of(Path(path))
    return _COMPRESSION if kind and (kind.compression or kind.format == "parquet") else 1
