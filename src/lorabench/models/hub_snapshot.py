"""Fetches a model repository from the hub: configuration, tokenizer and safetensors, and nothing that could run.

Files go through the hub's own cache (HF_HOME), where they are shared with other tools: each is written beside its
place and renamed when it is whole, so an interrupted download leaves whole files, which the next attempt keeps.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from lorabench.core.errors import DiskError, ModelError
from lorabench.core.hub import Repository, ResolvedRepository, explained, is_offline, resolve
from lorabench.core.hub_bounds import bounded_client
from lorabench.core.progress import Progress

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""What configuration and tokenizer can consist of. Never .bin, .pt, .py, .msgpack, .h5 or .gguf."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""One of them is there where a tokenizer is."""
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = "model-*-of-*.safetensors"

SPARE_BYTES = 50_000_000
POLL_SECONDS = 0.5
MAX_HEADER_BYTES = 100_000_000


def fetch_snapshot(
    repository_id: str, revision: str | None, *, gated: bool = False, progress: Progress | None = None
) -> tuple[Path, str]:
    """The folder that holds the model, and the commit it is of. Fetches only what is not there yet.

    `revision` None: the newest commit. `gated`: whether the catalogue says that its licence has to be accepted first.

    Raises ModelError where the repository is not a model that can be read safely, DownloadError and DiskError where
    it cannot be had.
    """
    from huggingface_hub import snapshot_download

    repository = Repository("model", repository_id, revision, gated=gated)
    with bounded_client(), explained(repository):
        if is_offline():
            patterns = [*SMALL_FILES, WEIGHTS, INDEX, SHARDS]
            folder = Path(
                snapshot_download(
                    repository.id, revision=repository.revision, allow_patterns=patterns, local_files_only=True
                )
            )
            check_weights(folder, repository)
            return folder, folder.name
        resolved = resolve(repository)
        wanted = wanted_files(resolved)
        _check_room(resolved, wanted)
        with _reported(repository, sum(size or 0 for _, size in wanted), progress):
            names = [path for path, _ in wanted]
            folder = Path(snapshot_download(repository.id, revision=repository.revision, allow_patterns=names))
        for path in _damaged(folder):
            _fetch_again(repository, folder.name, path)
        check_weights(folder, repository)
        return folder, folder.name


def wanted_files(resolved: ResolvedRepository) -> list[tuple[str, int | None]]:
    """The files to fetch, with their sizes. The single weights file is taken rather than shards, where there are both.

    Raises ModelError where they would be no model that can be read.
    """
    at_top = {path: size for path, size in resolved.files if "/" not in path}
    names = [name for name in SMALL_FILES if name in at_top]
    if WEIGHTS in at_top:
        names.append(WEIGHTS)
    elif INDEX in at_top:
        names += [INDEX, *sorted(name for name in at_top if _is_shard(name))]
    else:
        others = sorted(name for name in at_top if name.endswith((".bin", ".pt", ".h5", ".msgpack", ".gguf")))
        instead = f" (it has {', '.join(others[:3])})" if others else ""
        raise ModelError(
            f"model {resolved.repository.id} has no {WEIGHTS}{instead}; only safetensors are read: convert the "
            "weights, or name a repository or revision that has them"
        )
    if "config.json" not in at_top:
        raise ModelError(f"model {resolved.repository.id} has no config.json, so it is not a Transformers model")
    return [(name, at_top[name]) for name in names]


def _is_shard(name: str) -> bool:
    return name.startswith("model-") and "-of-" in name and name.endswith(".safetensors")


def _check_room(resolved: ResolvedRepository, wanted: list[tuple[str, int | None]]) -> None:
    """Refuse before the first byte where the disk cannot hold what is missing."""
    from huggingface_hub import constants, try_to_load_from_cache

    missing = sum(
        size or 0
        for path, size in wanted
        if not isinstance(try_to_load_from_cache(resolved.repository.id, path, revision=resolved.commit), str)
    )
    place = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in [place, *place.parents] if folder.exists())
    free = shutil.disk_usage(existing).free
    if missing and missing + SPARE_BYTES > free:
        raise DiskError(
            f"model {resolved.repository.id} needs {missing / 1e9:.2f} GB more and only {free / 1e9:.2f} GB are free "
            f"under {place}; free space, or set HF_HOME to a folder on a larger disk"
        )


@contextlib.contextmanager
def _reported(repository: Repository, total: int, progress: Progress | None) -> Iterator[None]:
    """Tell `progress` how much of the repository lies in the cache, as it grows."""
    if progress is None or total == 0:
        yield
        return
    from huggingface_hub import constants

    blobs = Path(constants.HF_HUB_CACHE) / f"models--{repository.id.replace('/', '--')}" / "blobs"
    done = threading.Event()

    what = f"Fetching {repository.id} (bytes)"

    def poll() -> None:
        while not done.wait(POLL_SECONDS):
            progress(what, min(total, _size(blobs)), total)

    watcher = threading.Thread(target=poll, name="lorabench-download-progress", daemon=True)
    watcher.start()
    try:
        yield
        progress(what, total, total)
    finally:
        done.set()
        watcher.join()


def _size(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
    return total


def _fetch_again(repository: Repository, commit: str, path: str) -> None:
    """Replace a cached file that is not whole."""
    from huggingface_hub import hf_hub_download

    hf_hub_download(repository.id, path, revision=commit, force_download=True)


def is_whole_snapshot(folder: Path) -> bool:
    """Whether a folder of the hub's cache holds a configuration, a tokenizer and all weights."""
    try:
        return (
            (folder / "config.json").is_file()
            and any((folder / name).is_file() for name in TOKENIZER_FILES)
            and not _damaged(folder)
        )
    except ModelError:
        return False


def check_weights(folder: Path, repository: Repository) -> None:
    """Every weights file is there and as long as its own header says. Raises ModelError."""
    for path in _damaged(folder):
        raise ModelError(
            f"model {repository.id}: {folder / path} is missing or cut short; delete it and run the same command "
            "again where there is a network"
        )


def _damaged(folder: Path) -> list[str]:
    return [path for path in _weight_files(folder) if not _is_whole(folder / path)]


def _weight_files(folder: Path) -> list[str]:
    index = folder / INDEX
    if (folder / WEIGHTS).exists() or not index.exists():
        return [WEIGHTS]
    try:
        names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ModelError(f"{index} is not an index of safetensors files") from None
    for name in sorted(names):
        if not _is_shard(name) or "/" in name or "\\" in name:
            raise ModelError(f"{index} names {name[:80]!r}, which is not a safetensors shard beside it")
    return sorted(names)


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file ends where its header says that its last tensor does."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if not 0 < header_bytes <= min(MAX_HEADER_BYTES, size - 8):
                return False
            header = json.loads(file.read(header_bytes))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return False
    return size == 8 + header_bytes + max(ends, default=0)
