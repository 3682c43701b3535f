"""The cache folder, and writing files whole or not at all: a kill or a full disk leaves the earlier version.

Everything that can be made again (downloads, prepared corpora, tokens, converted and mini models) lies under
`cache_root()`. What is found damaged there is moved aside under another name, never deleted.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import json
import logging
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs

from lorabench.core.errors import DiskError, LorabenchError, system_error
from lorabench.core.home import is_temporary_home, temporary_home, user_path

_REMEDIES = {
    errno.ENOSPC: "free some space and give the same command again",
    errno.EDQUOT: "free some space and give the same command again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and give the same command again",
    errno.ENOENT: "the folder vanished; give the same command again",
}
ENVIRONMENT_VARIABLE = "LORABENCH_CACHE"

_LOG = logging.getLogger(__name__)
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def cache_root() -> Path:
    """LORABENCH_CACHE, or the user's cache folder. It is made on the first write, not here."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return user_path(chosen).absolute()
    try:
        folder = Path(platformdirs.user_cache_dir("lorabench", appauthor=False))
    except RuntimeError:  # there is no home folder
        folder = Path()
    return folder.absolute() if os.environ.get("XDG_CACHE_HOME") else _default_root(folder)


@cache
def _default_root(folder: Path) -> Path:
    """The user's cache folder; where it cannot be made, or there is no home, one under the temporary folder."""
    if not folder.is_absolute() or not _can_be_made(folder):
        folder = temporary_home() / ".cache" / "lorabench"
    if is_temporary_home(folder.parent.parent):
        _LOG.warning(
            "there is no home folder that can be written to: what is fetched and made is kept in %s; %s names another",
            *(folder, ENVIRONMENT_VARIABLE),
        )
    return folder


def _can_be_made(folder: Path) -> bool:
    """Whether the folder is there, or the nearest of its parents that is there can be written to."""
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return existing == folder or os.access(existing, os.W_OK | os.X_OK)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, sync it, then rename it into place. Raises DiskError; `path` is then unchanged.

    A folder that lies where the file belongs is set aside.
    """
    temporary = path.with_name(f".writing-{_HOST}-{os.getpid()}-{path.name}"[:250])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.is_dir() and not path.is_symlink():
            _LOG.warning("%s is a folder: set aside as %s", path, set_aside(path).name)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise disk_error(path, error) from None


def _remove_leftovers(path: Path) -> None:
    """Remove what writers of `path` left that were killed on this machine; those of other machines may be alive."""
    for leftover in path.parent.glob(f".writing-{_HOST}-*-{glob.escape(path.name)}"):
        process = leftover.name.split("-")[2]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            leftover.unlink(missing_ok=True)
        except (OSError, ValueError, OverflowError):
            continue


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`; when the block ends well it is synced and takes the place of `target`.

    Hold a lock on the target around it: leftovers of killed writers of the same target are removed.
    Raises DiskError where it cannot be written. What the block itself raises goes through, and nothing stays.
    """
    temporary = target.with_name(f".writing-{target.name}"[:250])
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            elif path.is_dir():
                sync_folder(path)
        sync_folder(temporary)
        _put_in_place(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        found = None if isinstance(error, LorabenchError) else system_error(error)
        if found is not None:  # safetensors has an error of its own for a full disk
            raise disk_error(target, found) from None
        raise


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename a folder to `target`; an earlier one goes only when the new one stands."""
    earlier = target.with_name(f".replaced-{target.name}"[:250])
    shutil.rmtree(earlier, ignore_errors=True)
    if os.path.lexists(target):
        target.rename(earlier)
    temporary.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(earlier, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_aside(path: Path) -> Path:
    """Move a damaged file or folder to `<name>.damaged-<time>` beside it; returns where it lies now."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    moved = path.with_name(f"{path.name}.damaged-{stamp}")
    counter = 1
    while os.path.lexists(moved):
        counter += 1
        moved = path.with_name(f"{path.name}.damaged-{stamp}-{counter}")
    try:
        path.rename(moved)
    except FileNotFoundError:
        return moved  # another process was quicker
    except OSError as error:
        raise disk_error(path, error) from None
    return moved


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading; a pipe, socket or device in its place is an OSError at once, never a wait."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, max_bytes: int | None = None) -> bytes:
    """A file's content, read once. Raises OSError, for anything but a file and for one that is too large too."""
    with open_regular(path) as file:
        if max_bytes is not None and os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(f"it is larger than {max_bytes:,} bytes")
        return file.read()


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remember(path: Path, values: object) -> None:
    """Keep JSON values with a hash of them. A cache that cannot be written is done without."""
    with contextlib.suppress(DiskError):
        write_atomically(path, json.dumps({"values": values, "sha256": _digest(values)}).encode("ascii"))


def recall(path: Path) -> Any:
    """Values that were remembered; None where there are none, or not those that were written."""
    try:
        kept = json.loads(read_regular(path))
        values = kept["values"]
        return values if kept["sha256"] == _digest(values) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("ascii")).hexdigest()


def _is_cached(path: Path) -> bool:
    try:
        return path.is_relative_to(cache_root())
    except LorabenchError:  # there is no cache
        return False


def disk_error(path: Path, error: OSError) -> DiskError:
    """One sentence for a write that failed at `path`."""
    where = f"{path} cannot be written: {error.strerror or error}"
    if _is_cached(path):
        return DiskError(f"{where}; free or mend the disk, or set {ENVIRONMENT_VARIABLE} to a folder on another")
    return DiskError(f"{where}; {remedy(error, 'choose a folder that can be written to')}")


def remedy(error: OSError, otherwise: str) -> str:
    """What a user can do about an error of the system."""
    return _REMEDIES.get(error.errno or 0, otherwise)
