"""What the corpus and model loaders share when they talk to the hub: bounds on waiting, and errors in one sentence.

The hub's client retries generously and answers with tracebacks of many lines. Here a hub that is down is known within
seconds, one that breaks later is given up on in bounded time, and whatever went wrong becomes one sentence with its
remedy, in which no token can appear.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lorabench.core.errors import DataError, DiskError, DownloadError, InputError, LorabenchError, ModelError
from lorabench.core.hub_bounds import REQUEST_TIMEOUT_SECONDS, bounded_client
from lorabench.core.redaction import without_secrets

Kind = Literal["model", "dataset"]

ATTEMPT_WAITS_SECONDS = (0.5, 1.5)
"""Pauses before the second and third attempt to reach the hub at all."""
PARQUET_BRANCH = "refs/convert/parquet"
"""Where the hub itself keeps a Parquet conversion of a dataset."""

_NETWORK_MODULES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp", "socket"}
_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
_KEPT = {"model": ": files that are already here are not fetched again", "dataset": ""}
_HUB_HEADERS = ("X-Repo-Commit", "ETag")
"""Without them the hub's client keeps no file; it names the one that it misses."""
_BUSY_STATUSES = {408, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Repository:
    """A repository on the hub as the catalogue names it. `revision` None means unpinned: the head of `main`."""

    kind: Kind
    id: str
    revision: str | None
    gated: bool = False
    """Whether the catalogue says that its licence has to be accepted first."""

    @property
    def page(self) -> str:
        """Where a person looks at it."""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.id}"


@dataclass(frozen=True)
class ResolvedRepository:
    """What a revision means right now: a commit, and the files in it as (path, bytes or None)."""

    repository: Repository
    commit: str
    files: tuple[tuple[str, int | None], ...]
    gated: bool = False
    licence: str | None = None
    """As its card says it."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of a data set, by configuration, where its card names them."""


def endpoint() -> str:
    """The hub's address as the client uses it, without credentials that somebody may have put into it."""
    from huggingface_hub import constants

    parts = urllib.parse.urlsplit(str(constants.ENDPOINT))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or one of its synonyms) forbids the network."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


def hide_secrets(text: str) -> str:
    """`text` without secrets: every token that the hub's client could be using is replaced by <token>."""
    for token in _tokens():
        text = text.replace(token, "<token>")
    return without_secrets(text)


def _tokens() -> list[str]:
    from huggingface_hub import get_token

    candidates = {os.environ.get(name, "") for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    with contextlib.suppress(OSError):
        candidates.add(get_token() or "")
    return sorted((token.strip() for token in candidates if len(token.strip()) >= 4), key=len, reverse=True)


def resolve(repository: Repository) -> ResolvedRepository:
    """Ask the hub which commit a revision is. Tries three times within about 2 s. Raises LorabenchError."""
    from huggingface_hub import HfApi

    def request() -> Any:
        return HfApi().repo_info(
            repository.id,
            repo_type=repository.kind,
            revision=repository.revision,
            timeout=REQUEST_TIMEOUT_SECONDS,
            files_metadata=True,
        )

    with bounded_client(), explained(repository):
        info = _with_attempts(request)
        if not info.sha:
            raise DownloadError(f"{endpoint()} does not answer like a hub for {_name(repository)}; check HF_ENDPOINT")
        files = tuple((item.rfilename, item.size) for item in info.siblings or [])
        licences = [str(tag).partition(":")[2] for tag in info.tags or [] if str(tag).startswith("license:")]
        return ResolvedRepository(
            repository,
            str(info.sha),
            files or _list_files(repository, str(info.sha)),
            gated=bool(info.gated),
            licence=licences[0] if licences else None,
            columns=_columns(info.card_data),
        )


def _columns(card: Any) -> dict[str, tuple[str, ...]]:
    told = card.get("dataset_info") if card is not None else None
    configs = [config for config in (told if isinstance(told, list) else [told]) if isinstance(config, Mapping)]
    return {
        str(config.get("config_name", "default")): tuple(
            str(column.get("name")) for column in config.get("features") or () if isinstance(column, Mapping)
        )
        for config in configs
    }


def _list_files(repository: Repository, commit: str) -> tuple[tuple[str, int | None], ...]:
    """The files of a commit from the repository's tree, for hubs that do not list them with the information."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    tree = HfApi().list_repo_tree(repository.id, repo_type=repository.kind, revision=commit, recursive=True)
    return tuple((item.path, item.size) for item in tree if isinstance(item, RepoFile))


def _with_attempts(request: Callable[[], Any]) -> Any:
    for wait in ATTEMPT_WAITS_SECONDS:
        try:
            return request()
        except Exception as error:
            if not _is_passing(error):
                raise
            time.sleep(wait)
    return request()


def _is_passing(error: BaseException) -> bool:
    """Whether trying again a moment later makes sense. A request that timed out has waited long enough."""
    status = _status(error)
    if status is not None:
        return status in _BUSY_STATUSES
    return _is_network(error) and "Timeout" not in type(error).__name__


@contextlib.contextmanager
def explained(repository: Repository) -> Iterator[None]:
    """Turn whatever goes wrong with `repository` into one of lorabench's errors."""
    try:
        yield
    except (LorabenchError, MemoryError):
        raise
    except Exception as error:
        raise explain(error, repository) from None


def explain(error: BaseException, repository: Repository) -> LorabenchError:
    """One sentence: what, where, and what would mend it. The most specific cause is looked for in the whole chain."""
    from huggingface_hub import errors

    chain = _chain(error)
    name = _name(repository)
    disk = next((e for e in chain if _is_disk(e)), None)
    if disk is not None:
        return _explain_disk(disk, name)
    for known, explanation in (
        (errors.GatedRepoError, _explain_gated),
        (errors.RevisionNotFoundError, _explain_revision),
        (errors.RepositoryNotFoundError, _explain_missing),
        (errors.OfflineModeIsEnabled, _explain_offline),
    ):
        found = next((e for e in chain if isinstance(e, known)), None)
        if found is not None:
            refused = repository.gated and _status(found) in (401, 403)
            return (_explain_gated if refused else explanation)(found, repository)
    status = next((s for s in map(_status, chain) if s is not None), None)
    if status is not None:
        return _explain_status(status, repository)
    network = next((e for e in chain if _is_network(e)), None)
    if network is not None:
        return DownloadError(
            f"the hub at {endpoint()} {_network_reason(network)} while fetching {name}; check the network (or "
            f"HF_ENDPOINT) and run the same command again{_KEPT[repository.kind]}"
        )
    headers = [header for header in _HUB_HEADERS if any(header in str(e) for e in chain)]
    if headers:
        return DownloadError(
            f"{endpoint()} does not answer like a hub for {name}: its answers have no {headers[0]} header; check "
            "HF_ENDPOINT"
        )
    if any(isinstance(e, errors.LocalEntryNotFoundError) for e in chain) and is_offline():
        return _explain_offline(error, repository)
    detail = hide_secrets(" ".join(str(error).split()))[:200]
    kind: type[InputError] = ModelError if repository.kind == "model" else DataError
    return kind(f"{name} cannot be used as it is on {endpoint()}: {type(error).__name__}: {detail}")


def _name(repository: Repository) -> str:
    at = f" at revision {repository.revision}" if repository.revision else ""
    return f"{repository.kind} {repository.id}{at}"


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain and len(chain) < 20:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_network(error: BaseException) -> bool:
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(modules & _NETWORK_MODULES) or isinstance(error, ConnectionError | TimeoutError)


def _is_disk(error: BaseException) -> bool:
    full = {errno.ENOSPC, errno.EDQUOT}
    return (isinstance(error, OSError) and error.errno in full | _UNWRITABLE) or "No space left on device" in str(error)


def _network_reason(error: BaseException) -> str:
    name, text = type(error).__name__, str(error)
    if "Timeout" in name:
        return "does not answer"
    if "refused" in text:
        return "refuses connections"
    if "RemoteProtocol" in name or "incomplete" in text or "disconnected" in text.lower():
        return "keeps breaking the connection off"
    return "cannot be reached"


def _explain_disk(error: BaseException, name: str) -> LorabenchError:
    from huggingface_hub import constants

    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return DiskError(
            f"{constants.HF_HUB_CACHE} cannot be written while fetching {name}; make it writable, or set HF_HOME to a "
            "folder that is"
        )
    return DiskError(
        f"the disk under {constants.HF_HUB_CACHE} is full while fetching {name}; free space, or set HF_HOME to a "
        "folder on a larger disk, and run the same command again"
    )


def _explain_gated(error: BaseException, repository: Repository) -> LorabenchError:
    if _tokens() and _status(error) != 401:
        return DownloadError(
            f"{_name(repository)} is gated and the token in use has no access to it; accept its licence at "
            f"{repository.page} with the account that owns the token, and run the same command once access is granted"
        )
    return DownloadError(
        f"{_name(repository)} is gated; accept its licence at {repository.page}, then set HF_TOKEN to a read token of "
        f"that account (made at {endpoint()}/settings/tokens) and run the same command again"
    )


def _explain_revision(error: BaseException, repository: Repository) -> LorabenchError:
    kind: type[InputError] = ModelError if repository.kind == "model" else DataError
    return kind(
        f"{repository.kind} {repository.id} has no revision {repository.revision or 'main'} on {endpoint()}; give a "
        "commit, tag or branch that is listed there, or none for the newest"
    )


def _explain_missing(error: BaseException, repository: Repository) -> LorabenchError:
    kind: type[InputError] = ModelError if repository.kind == "model" else DataError
    if _status(error) == 401 and _tokens():
        remedy = "check the repository id, and that the token in HF_TOKEN is still valid"
    else:
        remedy = "check the repository id, and set HF_TOKEN if the repository is private"
    return kind(f"there is no {repository.kind} {repository.id} on {endpoint()}, or it is private; {remedy}")


def _explain_offline(error: BaseException, repository: Repository) -> LorabenchError:
    from huggingface_hub import constants

    return DownloadError(
        f"HF_HUB_OFFLINE is set and {_name(repository)} is not (wholly) in {constants.HF_HUB_CACHE}; unset it, or "
        "fetch the repository once where there is a network"
    )


def _explain_status(status: int, repository: Repository) -> LorabenchError:
    name = _name(repository)
    if status == 401 and not _tokens():
        return DownloadError(
            f"{name} is given to accounts only (401); accept its licence at {repository.page} if it has one, then set "
            f"HF_TOKEN to a read token of that account (made at {endpoint()}/settings/tokens)"
        )
    if status == 401:
        return DownloadError(
            f"{endpoint()} refuses the token for {name} (401); set HF_TOKEN to a valid read token, or unset it"
        )
    if status == 403:
        return DownloadError(
            f"{endpoint()} forbids access to {name} (403); accept its licence at {repository.page} if it has one, and "
            "set HF_TOKEN to a token with read access to it"
        )
    if status == 429:
        return DownloadError(
            f"{endpoint()} limits requests and refused {name} (429); set HF_TOKEN, or run the same command again in a "
            "few minutes"
        )
    if status >= 500:
        return DownloadError(
            f"the hub at {endpoint()} is failing ({status}) while fetching {name}; run the same command again "
            f"later{_KEPT[repository.kind]}"
        )
    return DownloadError(
        f"{endpoint()} answers {status} for {name}; check its catalogue entry against {repository.page}"
    )
