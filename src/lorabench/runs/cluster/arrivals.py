"""The head's part: puts what nodes send into the output folder, file by file whole and hashed, the record last."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from lorabench.core.errors import DiskError
from lorabench.core.storage import disk_error, sync_folder
from lorabench.records.store import RecordStore
from lorabench.runs.cluster.jobs import Delivery, Piece
from lorabench.runs.cluster.luggage import BASE_SCORES, RUN
from lorabench.runs.cluster.parcels import is_place

NUM_KEPT = 2
"""Checkpoints of a run under way; the node keeps as many."""


@dataclass
class Arrival:
    """What one job sends. A job that is lost on the way leaves nothing but what it had delivered."""

    store: RecordStore
    run_id: str
    key: str
    known: set[str]
    """Places of the run's files that the node was sent, or has delivered."""
    is_complete: bool = False
    """Whether the run's whole folder has come back."""
    _hashes: dict[str, hashlib._Hash] = field(default_factory=dict)

    @property
    def _staging(self) -> Path:
        return self.store.runs_dir / f".arriving-{self.run_id}-{self.key}"

    def take(self, piece: Piece) -> None:
        """Keep a piece beside the runs. Raises DiskError."""
        self._check(piece.place)
        path = self._staging / piece.place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(piece.content)
        except OSError as error:
            raise disk_error(path, error) from None
        self._hashes.setdefault(piece.place, hashlib.sha256()).update(piece.content)

    def put_in_place(self, delivery: Delivery) -> None:
        """Move what was delivered to where it belongs. Raises DiskError for what is not as it was sent."""
        for place, sha256 in delivery.files.items():
            self._check(place)
            if self._hashes.get(place, hashlib.sha256()).hexdigest() != sha256:
                raise DiskError(f"{self.run_id}: {place} arrived otherwise than it was sent; the run is done again")
        try:
            for place in delivery.files:
                self._move(place)
        except OSError as error:
            raise disk_error(self.store.run_dir(self.run_id), error) from None
        if delivery.is_whole:
            self._remove(self.known - set(delivery.files))
            self.is_complete = True
        else:
            self.known |= set(delivery.files)
            self._forget_older_checkpoints()
        self.forget()

    def forget(self) -> None:
        """Remove what lies beside the runs for this one, also of a head that was killed. Needs the run's lease."""
        self._hashes.clear()
        prefix = f".arriving-{self.run_id}-"
        for leftover in self.store.runs_dir.glob(f"{glob.escape(prefix)}*"):
            if "-" not in leftover.name.removeprefix(prefix):  # of no run whose id begins as this one
                shutil.rmtree(leftover, ignore_errors=True)

    def _check(self, place: str) -> None:
        if not is_place(place) or place.partition("/")[0] not in (RUN, BASE_SCORES):
            raise DiskError(f"{self.run_id}: a node sent {place[:80]!r}, which is no part of a run")

    def _path_of(self, place: str) -> Path:
        first, _, rest = place.partition("/")
        return (self.store.run_dir(self.run_id) if first == RUN else self.store.base_scores_dir) / rest

    def _move(self, place: str) -> None:
        arrived, target = self._staging / place, self._path_of(place)
        arrived.parent.mkdir(parents=True, exist_ok=True)
        with arrived.open("ab") as file:  # made here where it is empty
            os.fsync(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        arrived.replace(target)
        sync_folder(target.parent)

    def _remove(self, places: Collection[str]) -> None:
        """What the node has removed, and the folders that are empty then."""
        folder = self.store.run_dir(self.run_id)
        for path in sorted(map(self._path_of, places)):
            path.unlink(missing_ok=True)
        for parent in sorted({self._path_of(place).parent for place in places}, reverse=True):
            while parent != folder and parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
                parent = parent.parent

    def _forget_older_checkpoints(self) -> None:
        folder = self.store.checkpoints_dir(self.run_id)
        finished = sorted(path for path in folder.glob("step-*") if path.name[5:].isdigit())
        for old in finished[:-NUM_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
