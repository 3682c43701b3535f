"""How what ended a run is put into words: its state, and one sentence."""

from __future__ import annotations

import traceback
from pathlib import Path

from lorabench.core.errors import DivergedError, LorabenchError, OutOfMemoryRunError, system_error
from lorabench.core.out_of_memory import is_out_of_memory
from lorabench.core.storage import remedy
from lorabench.records.schema import Status


def failure(error: Exception, stage: str = "") -> tuple[Status, str]:
    """The state and the sentence for an error that ended a run; one that nobody foresaw names the run's stage."""
    message = " ".join(str(error).split())[:500]
    if isinstance(error, DivergedError):
        return Status.DIVERGED, message
    if isinstance(error, OutOfMemoryRunError):
        return Status.OUT_OF_MEMORY, message
    if is_out_of_memory(error):
        return Status.OUT_OF_MEMORY, f"memory ran out: {message or type(error).__name__}"
    if isinstance(error, LorabenchError):
        return Status.FAILED, str(error)
    system = system_error(error)
    if system is not None:
        where = f"{system.filename}: " if system.filename else ""
        what = remedy(system, "give the same command again once that is mended")
        return Status.FAILED, f"{where}{system.strerror or message}; {what}"
    line = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(line.filename).name}, line {line.lineno}" + (f", in the stage {stage}" if stage else "")
    return Status.FAILED, f"{type(error).__name__}: {message} ({place})"
