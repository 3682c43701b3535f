"""Reads a corpus from the Hugging Face hub: a budget's worth of documents, never the whole repository.

Repositories are streamed through `datasets`. Reading only their first rows would be a biased sample of those that are
sorted (arXiv's abstracts are, by date), so several times the budget is read, from up to eight files side by side, and
documents are drawn from that window by a hash of their text. The draw depends on the repository's content alone: not
on a random generator, the machine or the library's version. One compressed file can only be entered at its beginning;
`HubDocuments.sampling` says from how much of it was drawn.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lorabench.core.catalog import FromHub
from lorabench.core.errors import DataError
from lorabench.core.hub import (
    PARQUET_BRANCH,
    Repository,
    ResolvedRepository,
    bounded_client,
    bounded_streaming,
    explained,
    is_offline,
    resolve,
)
from lorabench.core.progress import Progress
from lorabench.corpora.documents import SPLITS, Split
from lorabench.corpora.entry import DatasetEntry

WINDOW_FACTOR = 4
"""Bytes of text read per byte of budget."""
MAX_FILES_AT_ONCE = 8
BYTES_PER_FILE = 250_000
"""A file is opened for each so many bytes to read, so that small budgets do not open many files."""
HELD_OUT_BYTES = 8_000_000
"""Budget for a repository's own validation and test splits, which are only scored."""

_TITLE = re.compile(r"= (?!= )(?P<title>\S.*?)(?<! =) =")


class HubRows(FromHub, DatasetEntry):
    """Which rows of a repository are read, and what of each is text."""

    source: Literal["hub"]
    config: str | None = None
    """The repository's configuration."""
    files: dict[str, str | list[str]] = Field(default_factory=dict)
    """The repository's split -> patterns of its files, where the repository itself does not name them."""
    splits: dict[Split, str] = Field(default={"train": "train"})
    """Our split -> the repository's. A split that is not named is made from train by the documents' hashes."""
    text_fields: tuple[str, ...] = ("text",)
    """Joined by `separator`; a dotted path steps into nested fields, and lists are joined too."""
    separator: str = "\n\n"
    documents: Literal["rows", "wikitext-pages"] = "rows"
    """What a document is: a row, or the rows between two page headings."""

    def splits_among(self, names: Sequence[str]) -> Mapping[Split, str]:
        """Our split -> the repository's, of those that it has. Raises DataError."""
        missing = next((name for name in self.splits.values() if name not in names), None)
        if missing is not None:
            raise DataError(
                f"dataset {self.name}: {self.repository} has no split {missing!r}; it has {', '.join(map(repr, names))}"
            )
        return self.splits

    def texts_of(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """Each row's text: its text fields joined. Rows without any are left out."""
        return _field_texts(rows, self)

    @model_validator(mode="after")
    def _has_a_training_split(self) -> Self:
        if "train" not in self.splits:
            raise ValueError("splits should name the repository's split for train")
        return self


@dataclass(frozen=True)
class HubDocuments:
    """Texts of each split, as the repository has them, and where they came from."""

    texts: dict[str, list[str]]
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
            texts, sampling = _read_splits(entry, source.streams, max_bytes, progress)
        except _cast_errors():
            texts, sampling = _read_splits(entry, source.load_wanted_columns(), max_bytes, progress)
    return HubDocuments(
        texts=texts,
        repository=repository.id,
        revision=source.commit,
        pinned=entry.revision is not None,
        parquet_branch=source.from_branch,
        sampling=sampling,
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
        all the same."""
        import datasets

        builder = datasets.load_dataset_builder(self.path, **_selection(self.entry), **self.where)
        files = {str(split): list(paths) for split, paths in (builder.config.data_files or {}).items()}
        kind = str(builder.info.builder_name or builder.name)
        wanted = list(dict.fromkeys(name.split(".")[0] for name in self.entry.text_fields))
        streams: Mapping[str, Any] = datasets.load_dataset(
            kind, data_files=files, streaming=True, **({"columns": wanted} if kind == "parquet" and wanted else {})
        )
        return streams


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


def _read_splits(
    entry: HubRows, streams: Mapping[str, Any], max_bytes: int | None, progress: Progress | None
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Our splits' documents, and how each was drawn."""
    texts: dict[str, list[str]] = {}
    sampling: dict[str, str] = {}
    for split, source in entry.splits_among(list(streams)).items():
        report = None if progress is None else partial(progress, f"Reading {entry.name} ({split}, bytes)")
        texts[split], sampling[split] = _read_split(entry, streams[source], _budget(split, max_bytes), report)
    return texts, sampling


def _read_split(
    entry: HubRows, stream: Any, budget: int | None, report: Callable[[int, int | None], None] | None
) -> tuple[list[str], str]:
    """Documents of one split within the budget, and a sentence on how they were drawn."""
    window = None if budget is None else budget * WINDOW_FACTOR
    pages = entry.documents == "wikitext-pages"
    parts = 1 if pages else _num_parts(stream, window)
    rows = _interleaved(stream, parts)
    fields = entry.texts_of(rows)
    documents = join_pages(fields) if pages else fields
    read: list[str] = []
    num_bytes, complete = 0, True
    for text in documents:
        if window is not None and num_bytes >= window:
            complete = False
            break
        read.append(text)
        num_bytes += _num_bytes(text)
        if report is not None:
            report(num_bytes, window)
    drawn = draw(read, budget)
    if complete:
        extent = f"all {len(read)} documents"
    else:
        files = f"{parts} of {stream.num_shards} files" if stream.num_shards > 1 else "its one file"
        extent = f"the first {len(read)} documents ({num_bytes} bytes of text) of {files}"
    return drawn, f"{len(drawn)} documents drawn by hash from {extent}"


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


def _field_texts(rows: Iterable[Mapping[str, Any]], entry: HubRows) -> Iterator[str]:
    """Each row's text: its text fields joined. Rows without any are left out."""
    for row in rows:
        texts = [text for field in entry.text_fields for text in _flatten(_look_up(row, field, entry), field, entry)]
        if entry.documents == "wikitext-pages" or any(text.strip() for text in texts):
            yield entry.separator.join(texts)


def _look_up(row: Any, field: str, entry: HubRows) -> Any:
    """The value at a dotted path; a step into a list is a step into each of its items."""
    value = row
    for step in field.split("."):
        if isinstance(value, list):
            value = [item.get(step) if isinstance(item, Mapping) else item for item in value]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            accepted = ", ".join(_paths(row))
            raise DataError(
                f"dataset {entry.name}: rows of {entry.repository} have no field {field!r}; they have {accepted}"
            )
    return value


def _paths(row: Mapping[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{path}" for path in _paths(value))
        else:
            yield str(name)


def _flatten(value: Any, field: str, entry: HubRows) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for item in value:
            yield from _flatten(item, field, entry)
    elif value is not None:
        raise DataError(
            f"dataset {entry.name}: field {field!r} of {entry.repository} holds {type(value).__name__}, not text"
        )


def join_pages(lines: Iterable[str]) -> Iterator[str]:
    """Rejoin WikiText's rows into pages. A page starts at a heading ` = Title = `, not at ` = = Section = = `."""
    page: list[str] = []
    for line in lines:
        if _TITLE.fullmatch(line.strip()) and "".join(page).strip():
            yield "".join(page)
            page = []
        page.append(line if line.endswith("\n") else line + "\n")
    if "".join(page).strip():
        yield "".join(page)


def draw(texts: Sequence[str], budget: int | None) -> list[str]:
    """Whole documents, in the order of a hash of their text, until `budget` bytes are reached.

    The hash is not the one that splits a corpus, so that drawing favours no split.
    """
    if budget is None:
        return list(texts)
    drawn: list[str] = []
    num_bytes = 0
    for text in sorted(texts, key=_draw_key):
        drawn.append(text)
        num_bytes += _num_bytes(text)
        if num_bytes >= budget:
            break
    return drawn


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", errors="surrogatepass"))


def _draw_key(text: str) -> bytes:
    return hashlib.blake2b(
        text.encode("utf-8", errors="surrogatepass"), digest_size=16, person=b"lorabench draw"
    ).digest()
