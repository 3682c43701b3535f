"""Keeps prepared corpora on disk, so that reading, splitting and the search for duplicates are done once.

A corpus is a folder of three Parquet files and a manifest with their hashes. A folder that does not match its manifest
is named, moved aside (never deleted) and made again. The manifest alone answers what a plan needs to know.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from lorabench.core.errors import DataError, DiskError
from lorabench.core.home import user_path
from lorabench.core.locks import exclusively
from lorabench.core.progress import Progress
from lorabench.core.revisions import content_name, file_revision
from lorabench.core.storage import cache_root, new_folder, read_regular, set_aside, sha256_file
from lorabench.corpora.catalog import get_dataset, list_datasets
from lorabench.corpora.documents import SPLITS, Corpus, CorpusInfo, Document
from lorabench.corpora.entry import DatasetEntry, SourceTexts
from lorabench.corpora.references import SUFFIXES, CorpusReference, parts_of
from lorabench.corpora.sources.local import check_local_file

if TYPE_CHECKING:
    from lorabench.corpora.prepare import Prepared

MANIFEST = "manifest.json"
KEPT = "-near-duplicates-kept"
"""What is added to name and revision of a catalogue corpus whose near copies are kept: it has other documents."""

_LOG = logging.getLogger(__name__)
_DESCRIPTIVE = {"notes", "licence", "download_bytes", "approximate_bytes", "domain", "contaminates"}


@dataclass(frozen=True)
class CorpusRequest:
    """Which corpus is meant, before anything is read. `revision` is `unpinned` where only the hub knows it."""

    name: str
    revision: str
    entry: DatasetEntry | None
    path: Path | None
    text_field: str
    max_bytes: int | None
    """Bytes of text to read from the hub; None for everything, and for every other source."""
    near_duplicates: Literal["remove", "keep"] = "remove"

    @property
    def folder(self) -> Path:
        """Where the prepared corpus lies, or would lie."""
        from lorabench.corpora.prepare import PREPARATION_VERSION

        source = self.entry.model_dump(mode="json", exclude=_DESCRIPTIVE) if self.entry else self.text_field
        key = json.dumps([PREPARATION_VERSION, self.name, self.revision, self.max_bytes, source], sort_keys=True)
        return cache_root() / "corpora" / f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def request_corpus(
    reference: str | CorpusReference, *, max_train_bytes: int | None, text_field: str = "text"
) -> CorpusRequest:
    """What a reference means. Raises UnknownNameError, or DataError for a file that is not there."""
    parts = parts_of(reference)
    if parts.path is not None:
        return _request_file(parts, user_path(parts.path), text_field)
    entry = get_dataset(str(parts.name))
    kept = KEPT if parts.near_duplicates == "keep" else ""
    revision, max_bytes = entry.expected_revision() + _marks(parts), entry.bytes_to_read(max_train_bytes)
    return CorpusRequest(entry.name + kept, revision, entry, None, "text", max_bytes, parts.near_duplicates)


def _marks(chosen: CorpusReference | CorpusRequest) -> str:
    """What the revision of a catalogue corpus ends in: how its splits are made of the text."""
    from lorabench.corpora.prepare import revision_mark

    return (KEPT if chosen.near_duplicates == "keep" else "") + revision_mark()


def _request_file(parts: CorpusReference, path: Path, text_field: str) -> CorpusRequest:
    """A file's revision is the hash of its content, and of what else decides which documents it gives."""
    if parts.name is not None and any(entry.name == parts.name for entry in list_datasets()):
        raise DataError(f"{path}: it cannot be called {parts.name}, which is a corpus of the catalogue")
    check_local_file(path)
    revision = file_revision(path)
    choices = [] if path.suffix.lower() == SUFFIXES[0] or text_field == "text" else [text_field]
    choices += [marks] if (marks := _marks(parts)) else []
    if choices:
        revision = hashlib.sha256("\0".join([revision, *choices]).encode("utf-8", "backslashreplace")).hexdigest()
    name = parts.name or content_name(path.stem, revision)
    return CorpusRequest(name, revision, None, path, text_field, None, parts.near_duplicates)


def read_corpus_info(
    reference: str | CorpusReference, *, max_train_bytes: int | None = None, text_field: str = "text"
) -> CorpusInfo | None:
    """What is known of a corpus that was prepared before, from its manifest alone.

    None where it was not prepared, or its manifest is damaged.
    """
    request = request_corpus(reference, max_train_bytes=max_train_bytes, text_field=text_field)
    try:
        return _described(_read_manifest(request.folder)[0], request.entry)
    except (OSError, _Damaged):
        return None


def load_corpus(
    reference: str | CorpusReference,
    *,
    max_train_bytes: int | None,
    text_field: str = "text",
    progress: Progress | None = None,
) -> Corpus:
    """The corpus of a catalogue name or of a .txt, .jsonl or .parquet file, prepared on first use.

    Of a hub corpus only enough for `max_train_bytes` of training text is fetched (None: all of it); other corpora
    are always whole, so that their documents do not depend on a budget. Raises UnknownNameError, DataError,
    DownloadError or DiskError.
    """
    request = request_corpus(reference, max_train_bytes=max_train_bytes, text_field=text_field)
    folder = request.folder
    with exclusively(folder):
        if folder.exists():
            try:
                return _read(folder, request)
            except _Damaged as damage:
                moved = set_aside(folder)
                _LOG.warning("%s is damaged (%s): set aside as %s and made again", folder, damage, moved.name)
        _prepare_into(folder, request, progress)
        try:
            return _read(folder, request)
        except _Damaged as damage:
            raise DiskError(f"{folder} was written and reads back damaged ({damage}); check the disk") from None


class _Damaged(Exception):
    """What is wrong with a prepared corpus."""


def _prepare_into(folder: Path, request: CorpusRequest, progress: Progress | None) -> None:
    from lorabench.corpora.prepare import prepare

    source = _read_texts(request, progress)

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(f"preparing {request.name}: looking for text that is in two splits", done, total)

    keep = request.near_duplicates == "keep"
    prepared = prepare(source.texts, request.name, report, keep_near_duplicates=keep)
    info = _describe(request, source, prepared)
    with new_folder(folder) as temporary:
        for split in SPLITS:
            _write_split(temporary / f"{split}.parquet", prepared.splits[split])
        manifest: dict[str, Any] = {
            "info": info.model_dump(mode="json"),
            "files": {f"{split}.parquet": sha256_file(temporary / f"{split}.parquet") for split in SPLITS},
        }
        manifest["sha256"] = _digest(manifest)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")


def _read_texts(request: CorpusRequest, progress: Progress | None) -> SourceTexts:
    if request.entry is not None:
        return request.entry.read(request.max_bytes, progress)
    from lorabench.corpora.prepare import MIN_DOCUMENTS
    from lorabench.corpora.sources.local import cut_into_pieces, read_local_texts

    assert request.path is not None
    if progress is not None:
        progress(f"reading {request.path}", 0, None)
    texts = read_local_texts(request.path, request.text_field)
    notes = []
    if request.path.suffix.lower() == ".txt" and len(texts) < MIN_DOCUMENTS:
        pieces = cut_into_pieces(texts)
        notes.append(
            f"the file has {len(texts)} documents between blank lines; they were cut into {len(pieces)} pieces, so "
            "neighbouring pieces can lie in different splits"
        )
        texts = pieces
    return SourceTexts({"train": texts}, request.revision, pinned=True, notes=notes)


def _describe(request: CorpusRequest, source: SourceTexts, prepared: Prepared) -> CorpusInfo:
    entry = request.entry
    notes = [entry.notes] if entry is not None and entry.notes else []
    notes += source.notes + prepared.notes
    if prepared.num_repaired:
        notes.append(f"NUL characters or lone surrogates became U+FFFD in {prepared.num_repaired} documents")
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(split.encode())
        for document in prepared.splits[split]:
            digest.update(bytes.fromhex(document.hash))
    return CorpusInfo(
        name=request.name,
        source=entry.source if entry is not None else "file",
        revision=source.revision + ("" if entry is None else _marks(request)),
        pinned=source.pinned,
        licence=entry.licence if entry is not None else None,
        synthetic=entry.synthetic if entry is not None else False,
        domain=entry.domain if entry is not None else None,
        contaminates=entry.contaminates if entry is not None else (),
        notes="; ".join(notes) or None,
        num_documents={split: len(prepared.splits[split]) for split in SPLITS},
        num_bytes={split: sum(document.num_bytes for document in prepared.splits[split]) for split in SPLITS},
        removed=prepared.removed,
        near_duplicates=request.near_duplicates,
        num_repaired=prepared.num_repaired,
        content_sha256=digest.hexdigest(),
    )


def _described(info: CorpusInfo, entry: DatasetEntry | None) -> CorpusInfo:
    """The manifest's facts with what the catalogue states today."""
    if entry is None:
        return info
    today = {"licence": entry.licence, "domain": entry.domain, "contaminates": entry.contaminates}
    return info.model_copy(update=today)


def _write_split(path: Path, documents: list[Document]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "text": pa.array([document.text for document in documents], pa.large_string()),
        "hash": pa.array([document.hash for document in documents], pa.string()),
        "num_bytes": pa.array([document.num_bytes for document in documents], pa.int64()),
        "num_words": pa.array([document.num_words for document in documents], pa.int64()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _read(folder: Path, request: CorpusRequest) -> Corpus:
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
    return Corpus(info.name, info.revision, splits, _described(info, request.entry))


def _read_split(path: Path) -> list[Document]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, use_threads=False)
    columns = [table.column(name).to_pylist() for name in ("text", "hash", "num_bytes", "num_words")]
    return [Document(*row) for row in zip(*columns, strict=True)]


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
