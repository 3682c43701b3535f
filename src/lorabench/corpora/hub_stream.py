"""Reads a corpus from the Hugging Face hub: a budget's worth of documents, never the whole repository.

Repositories are streamed through `datasets`. Reading only their first rows would be a biased sample of those that are
sorted (arXiv's abstracts are, by date), so several times the budget is read, from up to eight files side by side, and
documents are drawn from that window by a hash of their text. The draw depends on the repository's content alone: not
on a random generator, the machine or the library's version. One compressed file can only be entered at its beginning;
`HubDocuments.sampling` says from how much of it was drawn.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lorabench.core.errors import DataError
from lorabench.core.hub import (
    PARQUET_BRANCH,
    Repository,
    ResolvedRepository,
    explained,
    is_offline,
    resolve,
)
from lorabench.core.hub_bounds import bounded_client, bounded_streaming
from lorabench.core.progress import Progress
from lorabench.corpora.conversations import Format, Row
from lorabench.corpora.documents import SPLITS
from lorabench.corpora.hub_rows import HubRows
from lorabench.corpora.window import HELD_OUT_BYTES, WINDOW_FACTOR, draw, draw_and_rest, num_bytes

MAX_FILES_AT_ONCE = 8
BYTES_PER_FILE = 250_000
"""A file is opened for each so many bytes to read, so that small budgets do not open many files."""
STEP_BYTES = 8_000_000
"""Text is read in multiples of this, so that small changes of a budget do not read again."""


@dataclass(frozen=True)
class HubDocuments:
    """Rows of each split, as the repository has them, and where they came from."""

    texts: dict[str, list[Row]]
    more_train: list[Row]
    """What a budget of more than one step adds to the training text: no held-out split is made of it."""
    format: Format
    """Of all rows."""
    repository: str
    revision: str
    """The commit that was read."""
    pinned: bool
    """False where the catalogue names no revision, so that another day may read another commit."""
    parquet_branch: bool
    """Whether the hub's own Parquet conversion was read because the repository is a loading script."""
    sampling: dict[str, str]
    """Per split, in words: how much was read and what was drawn from it."""


def load_hub_documents(entry: HubRows, *, max_bytes: int | None, progress: Progress | None = None) -> HubDocuments:
    """Read at most about `max_bytes` of text from the training split (None: all of it), and up to HELD_OUT_BYTES from
    each held-out split that the repository has.

    Raises DataError where the entry does not fit the repository, DownloadError and DiskError where it cannot be had.
    """
    repository = Repository("dataset", entry.repository, entry.revision)
    with bounded_client(), bounded_streaming(), explained(repository):
        source = _find(entry, repository)
        try:
            splits = _read_splits(entry, source.streams, max_bytes, progress)
        except _cast_errors():
            splits = _read_splits(entry, source.load_wanted_columns(), max_bytes, progress)
    return HubDocuments(
        texts={split: read.drawn for split, read in splits.items()},
        more_train=splits["train"].more,
        format=_one_format(entry, splits),
        repository=repository.id,
        revision=source.commit,
        pinned=entry.revision is not None,
        parquet_branch=source.from_branch,
        sampling={split: read.sampling for split, read in splits.items()},
    )


def bytes_drawn(entry: HubRows, max_bytes: int | None) -> int:
    """Bytes of text that reading a corpus with this budget keeps, all its splits together; what is fetched is about
    `WINDOW_FACTOR` times that, less compression."""
    if max_bytes is None:
        return entry.approximate_bytes
    return sum(_budget(split, max_bytes) or 0 for split in entry.splits or SPLITS)


def _budget(split: str, max_bytes: int | None) -> int | None:
    return max_bytes if split == "train" else min(HELD_OUT_BYTES, max_bytes or HELD_OUT_BYTES)


@dataclass(frozen=True)
class _Source:
    """Where a corpus is read from: the entry's part of a repository, or of a copy in the hub's cache."""

    entry: HubRows
    path: str
    commit: str
    streams: Mapping[str, Any]
    """By the repository's names of its splits."""
    from_branch: bool = False
    """Whether that is the hub's own Parquet conversion."""
    where: Mapping[str, str] = field(default_factory=dict)

    def load_wanted_columns(self) -> Mapping[str, Any]:
        """The same read from the files alone, for files whose columns are not those of the repository's card, or not
        all the same. Each split is read by itself."""
        import datasets

        builder = datasets.load_dataset_builder(self.path, **_selection(self.entry), **self.where)
        files = {str(split): list(paths) for split, paths in (builder.config.data_files or {}).items()}
        kind = str(builder.info.builder_name or builder.name)
        wanted = list(dict.fromkeys(name.split(".")[0] for name in self.entry.text_fields))
        columns = {"columns": wanted} if kind == "parquet" and wanted else {}
        return {
            split: datasets.load_dataset(kind, data_files={split: paths}, split=split, streaming=True, **columns)
            for split, paths in files.items()
        }


def _cast_errors() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetGenerationCastError
    from datasets.table import CastError

    return CastError, DatasetGenerationCastError


def _find(entry: HubRows, repository: Repository) -> _Source:
    if is_offline():
        folder = cached_folder(repository)
        return _Source(entry, str(folder), folder.name, _load(str(folder), entry))
    resolved = resolve(repository)
    if not _is_script(resolved):
        where = {"revision": resolved.commit}
        try:
            return _Source(entry, repository.id, resolved.commit, _load(repository.id, entry, **where), where=where)
        except RuntimeError as error:
            if "script" not in str(error):
                raise
    branch = resolve(Repository("dataset", repository.id, PARQUET_BRANCH))
    entry, where = entry.model_copy(update={"files": _branch_files(branch, entry)}), {"revision": branch.commit}
    streams = _load(repository.id, entry, **where)
    return _Source(entry, repository.id, branch.commit, streams, from_branch=True, where=where)


def _load(path: str, entry: HubRows, **where: Any) -> Mapping[str, Any]:
    """The entry's part of a repository as streams: files by its patterns, or one configuration.

    A repository that names no configurations is one configuration, whatever the entry calls it.
    """
    import datasets

    streams: Mapping[str, Any]
    try:
        streams = datasets.load_dataset(path, **_selection(entry), streaming=True, **where)
        return streams
    except ValueError as error:
        found = re.search(r"(?:Available|available configs): (\[.*?\])", str(error), re.DOTALL)
        if found is None:
            raise
        if found[1] == "['default']":
            return _load(path, entry.model_copy(update={"config": None}), **where)
        lacks = f"has no configuration {entry.config!r}" if entry.config else "wants a configuration (config)"
        raise DataError(f"dataset {entry.name}: {entry.repository} {lacks}; it has {found[1][1:-1]}") from None


def _selection(entry: HubRows) -> dict[str, Any]:
    return {"data_files": dict(entry.files)} if entry.files else {"name": entry.config}


def cached_folder(repository: Repository) -> Path:
    """The repository's snapshot in the hub's cache, without any request."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(repository.id, repo_type="dataset", revision=repository.revision, local_files_only=True)
    )


def _is_script(resolved: ResolvedRepository) -> bool:
    """Whether the repository is a loading script, which `datasets` does not run (nor would we)."""
    script = resolved.repository.id.rpartition("/")[2] + ".py"
    return any(path == script for path, _ in resolved.files)


def _branch_files(branch: ResolvedRepository, entry: HubRows) -> dict[str, list[str]]:
    """Split -> files of the Parquet branch, which lie in CONFIG/SPLIT/NNNN.parquet or CONFIG/partial-SPLIT/…"""
    paths = [path for path, _ in branch.files if path.endswith(".parquet") and path.count("/") == 2]
    configs = sorted({path.split("/")[0] for path in paths})
    config = entry.config or (configs[0] if len(configs) == 1 else "default")
    files: dict[str, list[str]] = {}
    for path in sorted(paths):
        folder, split, _ = path.split("/")
        if folder == config:
            files.setdefault(split.removeprefix("partial-"), []).append(path)
    if not files:
        raise DataError(
            f"dataset {entry.name}: {entry.repository} is a loading script, and its Parquet conversion "
            f"({PARQUET_BRANCH}) has no configuration {config!r}; it has {', '.join(map(repr, configs)) or 'none'}"
        )
    return files


@dataclass(frozen=True)
class _Read:
    """What was read of a split."""

    drawn: list[Row]
    more: list[Row]
    format: Format
    sampling: str
    """How it was drawn, in words."""


def _read_splits(
    entry: HubRows, streams: Mapping[str, Any], max_bytes: int | None, progress: Progress | None
) -> dict[str, _Read]:
    """By our splits."""
    found = {}
    for split, source in entry.splits_among(list(streams)).items():
        report = None if progress is None else partial(progress, f"Reading {entry.name} ({split}, bytes)")
        found[str(split)] = _read_split(entry, streams[source], _budget(split, max_bytes), report)
    return found


def _one_format(entry: HubRows, splits: Mapping[str, _Read]) -> Format:
    formats = {split: read.format for split, read in splits.items() if read.drawn}
    if "text" in formats.values() and len({*formats.values()}) > 1:
        told = ", ".join(f"{split} {format}" for split, format in formats.items())
        raise DataError(
            f"dataset {entry.name}: of the splits of {entry.repository} some are plain text and some conversations "
            f"({told}); say one by format"
        )
    return splits["train"].format


def _read_split(
    entry: HubRows, stream: Any, budget: int | None, report: Callable[[int, int | None], None] | None
) -> _Read:
    """Rows of one split within the budget: of the first step's window, and of all that was read beyond it.

    So a larger budget adds training text to that of a smaller one, and changes no held-out split.
    """
    window = None if budget is None else budget * WINDOW_FACTOR
    parts = 1 if entry.documents == "wikitext-pages" else _num_parts(stream, window)
    format, rows = entry.read_rows(_interleaved(stream, parts))
    read: list[Row] = []
    later: list[Row] = []
    size, complete = 0, True
    for row in rows:
        if window is not None and size >= window:
            complete = False
            break
        (later if budget is not None and size >= STEP_BYTES * WINDOW_FACTOR else read).append(row)
        size += num_bytes(row)
        if report is not None:
            report(size, window)
    drawn, more = draw(read, None), list[Row]()
    if budget is not None:
        drawn, rest = draw_and_rest(read, min(budget, STEP_BYTES))
        more = draw([*rest, *later], budget - STEP_BYTES) if budget > STEP_BYTES else more
    if complete:
        extent = f"all {len(read) + len(later)} documents"
    else:
        files = f"{parts} of {stream.num_shards} files" if stream.num_shards > 1 else "its one file"
        extent = f"the first {len(read) + len(later)} documents ({size} bytes of text) of {files}"
    return _Read(drawn, more, format, f"{len(drawn) + len(more)} documents drawn by hash from {extent}")


def _num_parts(stream: Any, window: int | None) -> int:
    """How many of the stream's files to read side by side."""
    num_files = int(stream.num_shards)
    if window is None:
        return 1
    return max(1, min(num_files, MAX_FILES_AT_ONCE, window // BYTES_PER_FILE))


def _interleaved(stream: Any, parts: int) -> Iterator[Mapping[str, Any]]:
    """Rows of `parts` evenly spaced files in turn; with one part, the whole stream in its own order."""
    if parts == 1:
        yield from stream
        return
    num_files = int(stream.num_shards)
    chosen = [stream.shard(num_shards=num_files, index=part * num_files // parts) for part in range(parts)]
    for rows in itertools.zip_longest(*chosen):
        yield from (row for row in rows if row is not None)
