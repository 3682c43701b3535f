"""What a plan needs of a model repository on the hub: its configuration and the headers of its weights, never these.

What was read of a commit is kept in lorabench's cache; offline it comes from there, or from the hub's own cache.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lorabench.core.errors import DownloadError, ModelError
from lorabench.core.hub import Repository, ResolvedRepository, explained, is_offline, resolve
from lorabench.core.hub_bounds import bounded_client
from lorabench.core.hub_memory import keep, kept
from lorabench.models.hub_snapshot import TOKENIZER_FILES, is_whole_snapshot, wanted_files
from lorabench.models.shape import ModelShape, parse_config, read_config, shape_of, stored_shapes

_READERS = 8
"""Headers read side by side, of models in many files."""


@dataclass(frozen=True)
class HubMetadata:
    """A commit of a model repository, without its weights."""

    commit: str
    config: dict[str, Any]
    shapes: dict[str, list[int]]
    """Of the stored tensors, by name."""
    download_bytes: int
    gated: bool
    licence: str | None

    def model_shape(self, where: str) -> ModelShape:
        """Raises ModelError, naming `where`, for what is no language model."""
        return shape_of(self.config, {name: tuple(shape) for name, shape in self.shapes.items()}, where)


@cache
def read_metadata(repository: Repository) -> HubMetadata:
    """What a revision holds now; asked once in a process. Costs kilobytes, and nothing where the commit is known.

    Raises ModelError for what is no model that is read, DownloadError where it cannot be had.
    """
    if is_offline():
        return _read_offline(repository)
    resolved = resolve(repository)
    _remember_commit(repository, resolved.commit)
    known = _recall(repository, resolved.commit)
    if known is None:
        known = _ask(resolved)
        keep(repository, resolved.commit, asdict(known))
    return known


def cached_snapshot(repository: Repository, commit: str) -> Path | None:
    """Where the hub's own cache holds the commit wholly; None where it does not."""
    folder = _cache_folder(repository) / "snapshots" / commit
    return folder if is_whole_snapshot(folder) else None


def _ask(resolved: ResolvedRepository) -> HubMetadata:
    """Read the configuration, and of each file of weights its header, at one commit."""
    from huggingface_hub import HfApi

    repository = resolved.repository
    wanted = wanted_files(resolved)
    if not any(name in TOKENIZER_FILES for name, _ in wanted):
        raise ModelError(
            f"model {repository.id} has no tokenizer ({', '.join(TOKENIZER_FILES)}); save model and tokenizer into one "
            "folder, and give that"
        )
    weights = [name for name, _ in wanted if name.endswith(".safetensors")]

    def shapes_of(name: str) -> dict[str, list[int]]:
        header = HfApi().parse_safetensors_file_metadata(repository.id, name, revision=resolved.commit)
        return {tensor: list(found.shape) for tensor, found in header.tensors.items()}

    with bounded_client(), explained(repository), ThreadPoolExecutor(_READERS) as pool:
        asked = pool.submit(_read_config, resolved)
        headers = pool.map(shapes_of, weights)
        config = asked.result()
        shapes = {name: shape for found in headers for name, shape in found.items()}
    return HubMetadata(
        commit=resolved.commit,
        config=config,
        shapes=shapes,
        download_bytes=sum(size or 0 for _, size in wanted),
        gated=resolved.gated,
        licence=resolved.licence,
    )


def _read_config(resolved: ResolvedRepository) -> dict[str, Any]:
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import hf_raise_for_status

    url = hf_hub_url(resolved.repository.id, "config.json", revision=resolved.commit)
    response = get_session().get(url, headers=build_hf_headers())
    hf_raise_for_status(response)
    return parse_config(response.content, f"model {resolved.repository.id}: config.json")


def _read_offline(repository: Repository) -> HubMetadata:
    commit = _known_commit(repository)
    known = _recall(repository, commit) if commit else None
    if known is not None:
        return known
    folder = cached_snapshot(repository, commit) if commit else None
    if folder is None:
        raise DownloadError(
            f"HF_HUB_OFFLINE is set, and of model {repository.id} neither sizes nor weights are here; unset it, or run "
            "the same command once where there is a network"
        )
    return HubMetadata(
        commit=folder.name,
        config=read_config(folder),
        shapes={name: list(shape) for name, shape in stored_shapes(folder).items()},
        download_bytes=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        gated=False,
        licence=None,
    )


def _known_commit(repository: Repository) -> str | None:
    """The commit that a revision was when the hub was last asked, by its client or by us."""
    folder, revision = _cache_folder(repository), repository.revision or "main"
    if (folder / "snapshots" / revision).is_dir() or _recall(repository, revision):
        return revision
    reference = folder / "refs" / revision
    if reference.is_file():
        return reference.read_text(encoding="utf-8", errors="replace").strip()
    commit = kept(repository, f"revision {revision}")
    return str(commit) if commit else None


def _remember_commit(repository: Repository, commit: str) -> None:
    keep(repository, f"revision {repository.revision or 'main'}", commit)


def _recall(repository: Repository, commit: str) -> HubMetadata | None:
    values = kept(repository, commit)
    return HubMetadata(**values) if isinstance(values, dict) else None


def _cache_folder(repository: Repository) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.id.replace('/', '--')}"
