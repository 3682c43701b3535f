"""Files that travel: in pieces of bounded size, each file with the SHA-256 of its content and the place it belongs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lorabench.core.errors import DataError, DiskError
from lorabench.core.locks import exclusively
from lorabench.core.revisions import file_revision
from lorabench.core.storage import disk_error, open_regular, sync_folder

PIECE_BYTES = 16 << 20


@dataclass(frozen=True)
class Parcel:
    """One file on its way."""

    place: str
    """Where it belongs: a relative path with slashes, whose first part names one of the receiver's folders."""
    sha256: str
    pieces: tuple[Any, ...]
    """What `fetch` gives the bytes of, in order."""


def read_pieces(path: Path) -> Iterator[bytes]:
    """The content of a file, which may be empty. Raises OSError."""
    with open_regular(path) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def pack(path: Path, place: str, put: Callable[[bytes], Any]) -> Parcel:
    """Hand the file's content to `put`, whose results stand for the pieces. Raises OSError."""
    digest = hashlib.sha256()
    pieces = []
    for piece in read_pieces(path):
        digest.update(piece)
        pieces.append(put(piece))
    return Parcel(place, digest.hexdigest(), tuple(pieces))


def unpack(parcel: Parcel, target: Path, fetch: Callable[[Any], bytes]) -> None:
    """Write the file to `target`, whole or not at all, unless it is there already. Raises DiskError.

    Processes of one machine wait for one another.
    """
    if _is_there(parcel, target):
        return
    with exclusively(target):
        if not _is_there(parcel, target):
            with FileWriter(target) as writer:
                for piece in parcel.pieces:
                    writer.write(fetch(piece))
                writer.finish(parcel.sha256)


def _is_there(parcel: Parcel, target: Path) -> bool:
    try:
        return target.is_file() and file_revision(target) == parcel.sha256
    except DataError:
        return False


class FileWriter:
    """Writes a file piece by piece beside its place; `finish` compares its hash and renames it. Raises DiskError."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._temporary = target.with_name(f".arriving-{os.getpid()}-{target.name}"[:250])
        self._digest = hashlib.sha256()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
        except OSError as error:
            raise disk_error(target, error) from None

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """Append a piece."""
        self._digest.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise disk_error(self._target, error) from None

    def finish(self, sha256: str) -> None:
        """Put the file in its place if it is whole."""
        if self._digest.hexdigest() != sha256:
            raise DiskError(f"{self._target}: what arrived is not what was sent; give the same command again")
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._temporary.replace(self._target)
            sync_folder(self._target.parent)
        except OSError as error:
            raise disk_error(self._target, error) from None


def is_place(place: str) -> bool:
    """Whether a place stays below the folder that it is taken in."""
    path = PurePosixPath(place)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and str(path) == place
