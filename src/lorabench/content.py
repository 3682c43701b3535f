"""Revisions of local files and folders: hashes of their content, remembered so that plans do not read gigabytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from lorabench.cache import cache_root, sha256_file, write_atomically
from lorabench.errors import DataError, DiskError

REMEMBER_FROM_BYTES = 1_000_000


def file_revision(path: Path) -> str:
    """The SHA-256 of a file's content; for large files remembered by path, size and times of change."""
    try:
        state = path.stat()
        if state.st_size < REMEMBER_FROM_BYTES:
            return sha256_file(path)
        key = [str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
        memory = (
            cache_root() / "hashes" / f"{hashlib.sha256(str(key[0]).encode('utf-8', 'surrogateescape')).hexdigest()}"
        )
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(memory.read_bytes())
            if known["key"] == key:
                return str(known["sha256"])
        digest = sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror or error}") from None
    with contextlib.suppress(DiskError):
        write_atomically(memory, json.dumps({"key": key, "sha256": digest}).encode())
    return digest


def folder_revision(paths: Sequence[Path]) -> str:
    """One hash over the names and contents of the given files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        digest.update(f"{path.name}\0{file_revision(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
