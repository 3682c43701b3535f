"""A home folder for users who have none: a container's `--user 12345` has no entry in passwd and HOME is `/`.

Our cache and half the libraries below us (the hub's cache, W&B's settings, matplotlib's, torch's compiler) keep things
under the home folder, and each of them fails in its own way without one.
"""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from pathlib import Path

from lorabench.core.errors import DiskError, InputError


def ensure_home() -> None:
    """Set HOME, and a name of the user, for this process and its children where the system knows none.

    The home is then a folder of this user's own under the temporary folder. Where that cannot be had HOME stays as it
    is, and `cache_root` says so to who needs it.
    """
    if os.name != "posix":
        return
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"uid{os.getuid()}"
    if _has_home():
        return
    try:
        os.environ["HOME"] = str(temporary_home())
    except DiskError:
        return


def _has_home() -> bool:
    """Whether there is a home folder that can be looked into; the root of all folders counts if it can be written."""
    home = os.path.expanduser("~")
    wanted = os.R_OK | os.X_OK | (os.W_OK if home == "/" else 0)
    return os.path.isabs(home) and os.path.isdir(home) and os.access(home, wanted)


def temporary_home() -> Path:
    """This user's folder under the system's temporary one, for nobody else to read or write. Raises DiskError."""
    advice = "set HOME or LORABENCH_CACHE to a folder that can be written to"
    try:
        folder = _temporary_path()
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    except OSError as error:
        raise DiskError(f"there is no home folder, and no temporary one can be made ({error}); {advice}") from None
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or stat.S_IMODE(state.st_mode) & 0o077:
        raise DiskError(f"there is no home folder, and {folder} is not this user's alone; {advice}")
    return folder


def is_temporary_home(folder: Path) -> bool:
    """Whether the folder stands in for a home that this user does not have."""
    try:
        return folder == _temporary_path()
    except OSError:
        return False


def _temporary_path() -> Path:
    return Path(tempfile.gettempdir()).absolute() / f"lorabench-{os.getuid()}"


def user_path(path: Path | str) -> Path:
    """`path` with `~` and `~name` put in. Raises InputError where there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: there is no home folder of that name here; give the whole path") from None
