"""Keeps prepared corpora on disk, so that reading, splitting and the search for duplicates are done once.

A corpus is a folder of three Parquet files and a manifest with their hashes. A folder that does not match its manifest
is named, moved aside (never deleted) and made again. The manifest alone answers what a plan needs to know.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lorabench.core.errors import DiskError
from lorabench.core.locks import exclusively
from lorabench.core.progress import Progress
from lorabench.core.storage import cache_root, new_folder, read_regular, set_aside, sha256_file
from lorabench.corpora.catalog import find_corpus
from lorabench.corpora.documents import SPLITS, Corpus, CorpusInfo, Document, Turn
from lorabench.corpora.entry import PREPARATION_VERSION, DatasetEntry, SourceTexts
from lorabench.corpora.references import CorpusReference

if TYPE_CHECKING:
    from lorabench.corpora.prepare import Prepared

MANIFEST = "manifest.json"
MOST_LENGTHS = 1000
"""Of documents that are kept for plans."""
_LOG = logging.getLogger(__name__)


def load_corpus(
    reference: str | CorpusReference,
    *,
    max_train_bytes: int | None,
    text_field: str = "text",
    progress: Progress | None = None,
) -> Corpus:
    """The corpus of a catalogue name or of files of one's own: `load_prepared` of what it means."""
    source = find_corpus(reference, text_field=text_field, max_train_bytes=max_train_bytes)
    return load_prepared(source, max_train_bytes=max_train_bytes, progress=progress)


def load_prepared(source: DatasetEntry, *, max_train_bytes: int | None, progress: Progress | None = None) -> Corpus:
    """The corpus, prepared on first use.

    Of a hub corpus only enough for `max_train_bytes` of training text is fetched (None: all of it); other corpora
    are always whole, so that their documents do not depend on a budget. Raises DataError, DownloadError or DiskError.
    """
    source = source.drawn_for(max_train_bytes)
    max_bytes = source.bytes_to_read(max_train_bytes)
    folder = prepared_folder(source, max_bytes)
    with exclusively(folder):
        if folder.exists():
            try:
                return _read(folder, source)
            except _Damaged as damage:
                moved = set_aside(folder)
                _LOG.warning("%s is damaged (%s): set aside as %s and made again", folder, damage, moved.name)
        _prepare_into(folder, source, max_bytes, progress)
        try:
            return _read(folder, source)
        except _Damaged as damage:
            raise DiskError(f"{folder} was written and reads back damaged ({damage}); check the disk") from None


def read_corpus_info(source: DatasetEntry, *, max_train_bytes: int | None = None) -> CorpusInfo | None:
    """What is known of a corpus that was prepared before, from its manifest alone.

    None where it was not prepared, or its manifest is damaged.
    """
    folder = prepared_folder(source, source.bytes_to_read(max_train_bytes))
    try:
        return _described(_read_manifest(folder)[0], source)
    except (OSError, _Damaged):
        return None


def corpus_revision(source: DatasetEntry) -> str:
    """The revision that preparing it here would give; it begins with `unpinned` where only the hub knows."""
    return source.revision_of_documents(source.expected_revision())


def prepared_folder(source: DatasetEntry, max_bytes: int | None) -> Path:
    """Where the corpus that is prepared from so much text lies, or would lie."""
    key = [PREPARATION_VERSION, source.name, corpus_revision(source), max_bytes, source.identity()]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_root() / "corpora" / f"{source.name}-{digest[:16]}"


class _Damaged(Exception):
    """What is wrong with a prepared corpus."""


def _prepare_into(folder: Path, source: DatasetEntry, max_bytes: int | None, progress: Progress | None) -> None:
    from lorabench.corpora.prepare import prepare

    read = source.read(max_bytes, progress)

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(f"preparing {source.name}: looking for text that is in two splits", done, total)

    keep = source.near_duplicates == "keep"
    prepared = prepare(read.texts, source.name, report, more_train=read.more_train, keep_near_duplicates=keep)
    info = _describe(source, read, prepared)
    with new_folder(folder) as temporary:
        for split in SPLITS:
            _write_split(temporary / f"{split}.parquet", prepared.splits[split])
        manifest: dict[str, Any] = {
            "info": info.model_dump(mode="json"),
            "files": {f"{split}.parquet": sha256_file(temporary / f"{split}.parquet") for split in SPLITS},
        }
        manifest["sha256"] = _digest(manifest)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")


def _describe(source: DatasetEntry, read: SourceTexts, prepared: Prepared) -> CorpusInfo:
    notes = [source.notes] if source.notes else []
    notes += read.notes + prepared.notes
    if prepared.num_repaired:
        notes.append(f"NUL characters or lone surrogates became U+FFFD in {prepared.num_repaired} documents")
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(split.encode())
        for document in prepared.splits[split]:
            digest.update(bytes.fromhex(document.hash))
    return CorpusInfo(
        name=source.name,
        source=source.source,
        revision=source.revision_of_documents(read.revision),
        pinned=read.pinned,
        licence=source.licence,
        synthetic=source.synthetic,
        domain=source.domain,
        contaminates=source.contaminates,
        notes="; ".join(notes) or None,
        num_documents={split: len(prepared.splits[split]) for split in SPLITS},
        num_bytes={split: sum(document.num_bytes for document in prepared.splits[split]) for split in SPLITS},
        removed=prepared.removed,
        near_duplicates=source.near_duplicates,
        format=read.format,
        num_repaired=prepared.num_repaired,
        content_sha256=digest.hexdigest(),
        validation_lengths=_some_lengths(prepared.splits["validation"]),
    )


def _some_lengths(documents: list[Document]) -> tuple[int, ...]:
    every = -(-len(documents) // MOST_LENGTHS)
    return tuple(document.num_bytes for document in documents[:: max(1, every)])


def _described(info: CorpusInfo, source: DatasetEntry) -> CorpusInfo:
    """The manifest's facts with what the catalogue states today."""
    today = {"licence": source.licence, "domain": source.domain, "contaminates": source.contaminates}
    return info.model_copy(update=today)


def _write_split(path: Path, documents: list[Document]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "text": pa.array([document.text for document in documents], pa.large_string()),
        "hash": pa.array([document.hash for document in documents], pa.string()),
        "num_bytes": pa.array([document.num_bytes for document in documents], pa.int64()),
        "num_words": pa.array([document.num_words for document in documents], pa.int64()),
        "turns": pa.array([_write_turns(document) for document in documents], pa.large_string()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _read(folder: Path, source: DatasetEntry) -> Corpus:
    """Raises _Damaged where anything is not as it was written."""
    try:
        info, files = _read_manifest(folder)
        for split in SPLITS:
            name = f"{split}.parquet"
            if sha256_file(folder / name) != files.get(name):
                raise _Damaged(f"{name} does not match its hash")
        splits = {split: _read_split(folder / f"{split}.parquet") for split in SPLITS}
    except OSError as error:
        raise _Damaged(f"{Path(str(error.filename or folder)).name}: {error.strerror or error}") from None
    return Corpus(info.name, info.revision, splits, _described(info, source))


def _read_split(path: Path) -> list[Document]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, use_threads=False)
    columns = [table.column(name).to_pylist() for name in ("text", "hash", "num_bytes", "num_words")]
    if "turns" not in table.column_names:  # of earlier versions
        return [Document(*row) for row in zip(*columns, strict=True)]
    turns = map(_read_turns, table.column("turns").to_pylist())
    return [Document(*row) for row in zip(*columns, turns, strict=True)]


def _write_turns(document: Document) -> str | None:
    return None if document.turns is None else json.dumps([astuple(turn) for turn in document.turns])


def _read_turns(kept: str | None) -> tuple[Turn, ...] | None:
    return None if kept is None else tuple(Turn(*values) for values in json.loads(kept))


def _read_manifest(folder: Path) -> tuple[CorpusInfo, dict[str, str]]:
    try:
        manifest = json.loads(read_regular(folder / MANIFEST))
        expected = manifest.pop("sha256")
        if _digest(manifest) != expected:
            raise _Damaged(f"{MANIFEST} does not match its hash")
        return CorpusInfo.model_validate(manifest["info"]), dict(manifest["files"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError):
        raise _Damaged(f"{MANIFEST} is not whole") from None


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
