"""What a user wants of a run that a search may stop, said from another terminal through the run's folder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from lorabench.core.storage import read_regular, write_atomically
from lorabench.records.store import RecordStore


class Wish(StrEnum):
    """What is to become of a run, whatever the search finds."""

    STOP = "stop"
    """It goes no further than the next rung."""
    KEEP = "keep"
    """It goes on to the end."""


def _path(store: RecordStore, run_id: str) -> Path:
    return store.run_dir(run_id) / "wish"


def make_wish(store: RecordStore, run_id: str, wish: Wish) -> None:
    """Keep it in the run's folder, in the place of an earlier one. Raises DiskError."""
    write_atomically(_path(store, run_id), wish.value.encode("ascii"))


def read_wish(store: RecordStore, run_id: str) -> Wish | None:
    """The last one; what is none says nothing."""
    try:
        return Wish(read_regular(_path(store, run_id)).decode("ascii").strip())
    except (OSError, ValueError):
        return None
