"""Reading what may be damaged: never a wait for a pipe, never a number that no measurement has, never a traceback."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

from lorabench.core.errors import DiskError

_TOO_LARGE = 2**64
_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class DamagedFileError(DiskError):
    """A file beside a record that is not the one that the record was written with."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; lorabench run does the run again")
        self.path = path


def reason_of(error: OSError) -> str:
    """Why a file cannot be read, as the end of a sentence."""
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    return f"it cannot be read ({error.strerror or error})"


def kind_of(path: Path) -> str:
    """What lies at a path, in words; links that lead somewhere are what they lead to."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link to nothing" if path.is_symlink() else "nothing that can be read"
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "a device")


def parse_json(content: bytes) -> Any:
    """JSON whose numbers are finite and of a size that can be measured. Raises ValueError for anything else."""
    try:
        return json.loads(content, parse_int=_whole, parse_float=_finite, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(digits: str) -> int:
    value = int(digits)
    if abs(value) >= _TOO_LARGE:
        _refuse(digits)
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        _refuse(digits)
    return value


def _refuse(digits: str) -> None:
    raise ValueError(f"{digits[:40]} is no number that a run can have")
