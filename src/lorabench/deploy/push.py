"""Puts an exported folder on the hub."""

from __future__ import annotations

from pathlib import Path

from lorabench.core.catalog import HUB_ID
from lorabench.core.errors import InputError, LorabenchError
from lorabench.core.hub import Repository, endpoint, explained, is_offline
from lorabench.core.hub_bounds import bounded_client


def check_push(name: str) -> None:
    """Raise InputError, before anything is written, for what is no repository, or where nothing can be pushed."""
    from huggingface_hub import get_token

    if not HUB_ID.fullmatch(name) or "@" in name:
        raise InputError(f"--push {name[:80]}: a repository of the hub is expected, owner/name")
    if is_offline():
        raise InputError(f"--push {name}: HF_HUB_OFFLINE forbids the network; unset it")
    if not get_token():
        raise InputError(f"--push {name}: the hub needs a token that may write; set HF_TOKEN, or run hf auth login")


def push_folder(folder: Path, name: str, *, public: bool = False) -> str:
    """Upload the folder's files as one commit, to a repository that is made where there is none; returns its page.

    A new repository is private unless `public`; one that exists stays as it is. Raises DownloadError or InputError.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    hub = HfApi()
    try:
        with bounded_client(), explained(Repository("model", name, None)):
            try:
                hub.create_repo(name, private=not public, exist_ok=True)
                hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Exported by lorabench")
            except HfHubHTTPError as error:
                if error.response.status_code not in (401, 403):
                    raise
                raise InputError(
                    f"{endpoint()} does not let this token write to {name} ({error.response.status_code}); set "
                    "HF_TOKEN to one that may"
                ) from None
    except LorabenchError as error:
        raise type(error)(f"{error}; what was to be pushed lies in {folder}") from None
    return f"{endpoint()}/{name}"
