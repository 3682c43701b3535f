"""Standard output and error that may be closed at any time: what nobody reads is dropped, and the command goes on."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


class _Droppable(io.FileIO):
    """A file descriptor; what can no longer be written to it is dropped."""

    problem: OSError | None = None
    """Why, unless it is that nobody reads any more: that is everybody's good right."""

    def write(self, data: object) -> int:
        """As `io.FileIO.write`, which never fails."""
        view = memoryview(data)  # type: ignore[arg-type]
        try:
            return super().write(view)
        except BrokenPipeError:
            return view.nbytes
        except OSError as error:
            self.problem = self.problem or error
            return view.nbytes


def open_streams() -> None:
    """Make the process's own streams ones that never fail. A closed descriptor is opened on nothing.

    Otherwise the next file to be opened would get its number, and what libraries print would go into that file.
    Streams that another program has put in their place, such as a notebook's, are left alone.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    sys.stdout = _droppable(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _droppable(sys.stderr, sys.__stderr__, 2)


def _droppable(stream: TextIO | None, original: TextIO | None, number: int) -> TextIO:
    if stream is not None and stream is not original:
        return stream
    raw = _Droppable(number, "w", closefd=False)
    encoding = "utf-8" if stream is None else stream.encoding
    lines = number == 2 or raw.isatty()
    made = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=lines)
    if stream is not None:
        with suppress(OSError, ValueError):
            stream.flush()
    return made


def output_problem() -> OSError | None:
    """Why standard output could not be written to its end; None where it could, or nobody reads it any more."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.problem if isinstance(raw, _Droppable) else None
