"""What a node needs for a task, found on the head: model, corpora, compiled kernels, base scores, the run so far.

Files that lie in a cache go to the same place of the node's own cache, so that what is fetched, made or prepared once
on the head is so nowhere else. Files of the user's own go to the node's inbox, under their own names, which are part of
how they are called; the task then names them there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from glob import has_magic
from pathlib import Path, PurePosixPath

from lorabench.core.errors import InputError
from lorabench.core.progress import Progress
from lorabench.core.storage import cache_root
from lorabench.corpora.catalog import DATASETS, find_corpus
from lorabench.corpora.references import CorpusReference, parts_of
from lorabench.corpora.sources.file import FileCorpus
from lorabench.corpora.store import load_prepared, prepared_folder, read_corpus_info
from lorabench.models.catalog import MODELS
from lorabench.models.entry import ModelLocation
from lorabench.models.hub_snapshot import INDEX, SHARDS, SMALL_FILES, WEIGHTS
from lorabench.models.locate import is_model_path, locate_model
from lorabench.records.store import LEASE_NAME, RecordStore
from lorabench.runs.task import CorpusInput, RunTask, SharedInputs

CACHE, HUB, INBOX, RUN, BASE_SCORES = "cache", "hub", ".inbox", "run", "base_scores"
"""Folders of a node, as places name them; no name of a model or corpus begins with a dot."""
_SMALL_CACHES = ("hub", "kernels")
"""Parts of the cache that every task takes along: what is known of the hub, compiled code."""


def hub_cache() -> Path:
    """Where the hub's client keeps repositories."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def check_travels(task: RunTask) -> None:
    """Raise InputError for what a node cannot be given."""
    if task.measures.tasks:
        raise InputError(
            "evaluation.tasks: tasks of the harness do not travel to nodes; leave them out, and give the command again "
            "with --executor here to measure them afterwards"
        )
    listed = [("models", MODELS.place_of(task.inputs.model), task.inputs.model)]
    listed += [
        ("datasets", DATASETS.place_of(name), name)
        for name in (parts_of(corpus.reference).name for corpus in task.inputs.corpora)
        if name is not None
    ]
    for key, place, name in listed:
        if place is not None:
            raise InputError(f"{key}: {name} is listed in {place}, which nodes do not have; give its path or hub id")


def shared_files(
    inputs: SharedInputs, train_bytes: int, progress: Progress
) -> tuple[SharedInputs, list[tuple[str, Path]]]:
    """The inputs of a run with this budget as a node names them, and their files.

    What is not here yet is fetched, made or prepared first. Paths of the user's own begin with `.inbox/` there.
    """
    location = locate_model(inputs.model, progress=progress)
    model, files = _model_files(inputs.model, location)
    corpora = []
    for corpus in inputs.corpora:
        reference, found = _corpus_files(corpus, inputs, train_bytes, progress)
        corpora.append(corpus.model_copy(update={"reference": reference}))
        files += found
    for name in _SMALL_CACHES:
        folder = cache_root() / name
        files += [(_in_cache(path), path) for path in _files_in(folder) if path.suffix != ".cpp"]
    update = {"model": model, "corpora": tuple(corpora), "model_folder": str(location.folder)}
    return inputs.model_copy(update=update), files


def run_files(store: RecordStore, run_id: str) -> list[tuple[str, Path]]:
    """What the head holds of a run."""
    return [(f"{RUN}/{name}", path) for name, path in files_of_run(store.run_dir(run_id))]


def base_score_files(store: RecordStore) -> list[tuple[str, Path]]:
    """What base models were seen to score and to write."""
    paths = [path for suffix in ("parquet", "json") for path in store.base_scores_dir.glob(f"*.{suffix}")]
    return [(f"{BASE_SCORES}/{path.name}", path) for path in sorted(paths)]


def files_of_run(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of all files in a run's folder, the record last; not the lease, and nothing half-written."""
    found = [(path.relative_to(folder).as_posix(), path) for path in _files_in(folder)]
    for name, path in sorted(found, key=lambda entry: (entry[0] == "record.json", entry[0])):
        if name != LEASE_NAME:
            yield name, path


def _files_in(folder: Path) -> list[Path]:
    """All files, apart from hidden ones and those in hidden folders, such as locks and what is being written."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _in_cache(path: Path) -> str:
    return f"{CACHE}/{path.relative_to(cache_root()).as_posix()}"


def _model_files(reference: str, location: ModelLocation) -> tuple[str, list[tuple[str, Path]]]:
    folder = location.folder
    if is_model_path(reference):
        names = {*SMALL_FILES, WEIGHTS, INDEX, *(path.name for path in folder.glob(SHARDS))}
        inbox = _within(folder.parents[2] if location.published else folder.parent, folder)
        files = [(f"{inbox}/{name}", folder / name) for name in sorted(names) if (folder / name).is_file()]
        return inbox, files
    if folder.is_relative_to(cache_root()):
        return reference, [(_in_cache(path), path) for path in _files_in(folder)]
    root = hub_cache()
    repository = folder.parent.parent
    paths = [*_files_in(folder), *_files_in(repository / "refs")]
    return reference, [(f"{HUB}/{path.relative_to(root).as_posix()}", path) for path in paths]


def _corpus_files(
    corpus: CorpusInput, inputs: SharedInputs, train_bytes: int, progress: Progress
) -> tuple[str | CorpusReference, list[tuple[str, Path]]]:
    most = inputs.largest_train_bytes
    source = find_corpus(corpus.reference, text_field=inputs.text_field, max_train_bytes=most)
    files = []
    for budget in dict.fromkeys((train_bytes, most)):  # held-out text is read with the largest where training is not
        if read_corpus_info(source, max_train_bytes=budget) is None:
            load_prepared(source, max_train_bytes=budget, progress=progress)
        folder = prepared_folder(source, source.bytes_to_read(budget))
        files += [(_in_cache(path), path) for path in _files_in(folder)]
    if not isinstance(source, FileCorpus):
        return corpus.reference, files
    parts = parts_of(corpus.reference)
    matched = [file for found in source.files().values() for file in found]
    for path in (Path(path) for paths in parts.files.values() for path in paths):
        anchor = _anchor(path)
        whole = _files_in(path) if path.is_dir() else [path] if path.exists() else matched
        files += [(_within(anchor, file), file) for file in whole if file.is_relative_to(anchor)]
    moved = parts.with_paths(lambda path: _within(_anchor(Path(path)), Path(path)))
    return moved, list(dict(files).items())


def _anchor(path: Path) -> Path:
    """The folder below which names count: a file's or folder's parent, or what precedes a glob's first wildcard."""
    if path.exists():
        return path.parent
    fixed = [part for part in path.parts if part]
    magic = next(index for index, part in enumerate(fixed) if has_magic(part))
    return Path(*fixed[: max(1, magic - 1)])


def _within(anchor: Path, path: Path) -> str:
    """Where a file, folder or pattern below `anchor` belongs in an inbox."""
    return str(PurePosixPath(_key(anchor), path.relative_to(anchor).as_posix()))


def _key(folder: Path) -> str:
    return f"{INBOX}/{hashlib.sha256(str(folder.absolute()).encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
