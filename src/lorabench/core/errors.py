"""Every error that a user can meet, in one tree, so that the command line can answer each with one sentence.

LorabenchError
├── InputError           exit 2: what was asked for is wrong; nothing was done
│   ├── ConfigError          an experiment file or a --set value
│   ├── UnknownNameError     a model, corpus, run or module name that does not exist
│   ├── DataError            a text file or corpus that cannot be used
│   └── ModelError           a model or adapter folder that cannot be used
├── EnvironmentProblem   exit 1: the request is fine, this machine could not do it
│   ├── DownloadError        network, hub or registry
│   ├── DiskError            full, unwritable or damaged storage
│   ├── BusyError            another process holds what is needed, and waiting was not asked for
│   └── MissingExtraError    an optional dependency is not installed
└── RunError             exit 1: one run did not finish; it is recorded with its state
    ├── OutOfMemoryRunError
    ├── DivergedError
    └── CancelledError
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable
from importlib.util import find_spec

_QUOTED_CODE = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust, safetensors and tokenizers among them, end their sentences."""
_DISK_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class LorabenchError(Exception):
    """Anything lorabench reports to its user in one sentence."""

    exit_code = 1


class InputError(LorabenchError):
    """The input was wrong."""

    exit_code = 2


class ConfigError(InputError):
    """An experiment file, or a value given on the command line, is wrong."""


class UnknownNameError(InputError):
    """A name is in no catalogue."""


class DataError(InputError):
    """A text file or corpus cannot be used."""


class ModelError(InputError):
    """A model or adapter cannot be used."""


class EnvironmentProblem(LorabenchError):
    """The request is fine, but this machine could not do it now."""


class DownloadError(EnvironmentProblem):
    """Something could not be fetched."""


class DiskError(EnvironmentProblem):
    """Storage is full, unwritable or damaged."""


class BusyError(EnvironmentProblem):
    """Another process holds what is needed."""


class MissingExtraError(EnvironmentProblem):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency; install it with: pip install 'lorabench[{extra}]'")


def require_package(module: str, feature: str, extra: str) -> None:
    """Raises MissingExtraError where a module is not installed, which is not imported."""
    if find_spec(module) is None:
        raise MissingExtraError(feature, extra)


class RunError(LorabenchError):
    """One run did not finish."""


class OutOfMemoryRunError(RunError):
    """The run did not fit into memory."""


class DivergedError(RunError):
    """The loss or the gradient was not finite at `step`."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} was not finite at step {step}")
        self.step = step


class CancelledError(RunError):
    """The user stopped the run."""


def system_error(error: BaseException) -> OSError | None:
    """The system's own error that `error` is or quotes; None where it is something else."""
    if isinstance(error, OSError):
        return error
    quoted = _QUOTED_CODE.search(str(error))
    codes = [int(quoted[1])] if quoted else [code for code in _DISK_CODES if os.strerror(code) in str(error)]
    return OSError(codes[0], os.strerror(codes[0])) if codes else None


def is_environment_problem(error: BaseException | None) -> bool:
    """Whether the same request may succeed once disk, folders or network are in order, with nothing of it changed."""
    while error is not None:
        if isinstance(error, LorabenchError):
            return isinstance(error, EnvironmentProblem)
        if system_error(error) is not None:
            return True
        error = error.__cause__
    return False


def near_matches(word: str, accepted: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the accepted names closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word.lower(), list(accepted), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
