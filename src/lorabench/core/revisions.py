"""Revisions of local files and folders: hashes of their content, remembered so that plans do not read gigabytes.

What is the user's own is also named by its content, so that two things that are called alike are never taken for one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from lorabench.core.errors import DataError
from lorabench.core.storage import cache_root, recall, remember, sha256_file

REMEMBER_FROM_BYTES = 1_000_000
MAX_NAME_BYTES = 64
"""Of a safe name in UTF-8, so that file names made of it stay below the 255 bytes that file systems allow."""

_HASH = re.compile(r"^([0-9a-f]{8})[0-9a-f]{32,56}(?=-|$)")
_CONTENT_SUFFIX = re.compile(r"-[0-9a-f]{8}$")
_KEPT_IN_NAMES = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd", "Nl", "No", "So"})
"""Unicode's categories of letters, marks, digits and pictures."""


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
        known = recall(memory)
        if isinstance(known, list) and known[:-1] == key:
            return str(known[-1])
        digest = sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror or error}") from None
    remember(memory, [*key, digest])
    return digest


def folder_revision(paths: Sequence[Path]) -> str:
    """One hash over the names and contents of the given files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        digest.update(f"{path.name}\0{file_revision(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def content_name(name: str, revision: str) -> str:
    """What a file or folder of the user's own is called: `tickets-0123abcd`, its name and its revision's beginning.

    It depends on nothing else, neither on the place, nor on what it is listed with: files of one name are distinct,
    an edited file is another one, and the same content has the same name everywhere.
    """
    return f"{safe_name(name)}-{short_revision(revision)}"


def given_name(name: str) -> str:
    """What the user called it: the name without the revision's beginning; other names as they are."""
    return _CONTENT_SUFFIX.sub("", name)


def short_revision(revision: str) -> str:
    """Of a hash the first eight digits, and what follows it after a dash; any other revision as it is."""
    return _HASH.sub(r"\1", revision)


def safe_name(name: str) -> str:
    """Letters, marks, digits and symbols of all scripts, dots and dashes, in one normal form; all else becomes `_`.

    The result is safe as a part of a path, in a shell and in a table. Where nothing is left, it is `unnamed`.
    """
    kept = ["_"]
    for character in unicodedata.normalize("NFC", name):
        if character in ".-" or unicodedata.category(character) in _KEPT_IN_NAMES:
            kept.append(character)
        elif kept[-1] != "_":
            kept.append("_")
    cut = "".join(kept).encode("utf-8")[: MAX_NAME_BYTES + 1].decode("utf-8", errors="ignore")
    return cut.strip("._-") or "unnamed"
