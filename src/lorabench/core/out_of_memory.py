"""Recognises that memory ran out, on a processor or a GPU, whatever the library calls it."""

from __future__ import annotations

import errno
import re

_SAYS_SO = re.compile(
    r"not enough memory|can.t allocate memory|cannot allocate memory|out of memory|bad_alloc|ALLOC_FAILED",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or an error that it came from, means that an allocation failed."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and _SAYS_SO.search(str(error)):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False
