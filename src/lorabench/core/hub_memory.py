"""What was learned of repositories on the hub, kept in lorabench's cache: later plans ask less, and offline nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lorabench.core.hub import Repository, endpoint
from lorabench.core.storage import cache_root, recall, remember


def keep(repository: Repository, what: str, value: Any) -> None:
    """Keep plain values under a name such as a commit. A cache that cannot be written is done without."""
    remember(_place(repository, what), value)


def kept(repository: Repository, what: str) -> Any:
    """What was kept under the name; None where nothing was."""
    return recall(_place(repository, what))


def _place(repository: Repository, what: str) -> Path:
    kind = "datasets/" if repository.kind == "dataset" else ""
    key = hashlib.sha256(f"{endpoint()} {kind}{repository.id} {what}".encode()).hexdigest()
    return cache_root() / "hub" / f"{key}.json"
