"""Runs that some process is doing at this moment, and how far each has come. Nothing is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorabench.core.errors import DiskError, UnknownNameError
from lorabench.core.formatting import count, number
from lorabench.core.locks import is_free
from lorabench.core.storage import open_regular
from lorabench.records.reading import parse_json
from lorabench.records.store import LEASE_NAME, METRICS_NAME, RecordStore

_TAIL_BYTES = 4096
"""Several lines of metrics.jsonl."""


@dataclass(frozen=True)
class UnderWay:
    """A run whose lease a process holds."""

    run_id: str
    step: int | None
    """The last one on disk; None before the first."""
    loss: float | None
    """Training loss of that step, in nats a token."""
    tokens_per_second: float | None

    def sentence(self, num_steps: int | None = None) -> str:
        """How far it is, of about `num_steps` steps where they are known."""
        if self.step is None:
            return "before its first step"
        of = "" if num_steps is None else f" of about {count(max(num_steps, self.step))}"
        loss = "" if self.loss is None else f", loss {number(self.loss)}"
        speed = "" if self.tokens_per_second is None else f", {count(self.tokens_per_second)} tokens/s"
        return f"step {count(self.step)}{of}{loss}{speed}"


def read_under_way(store: RecordStore, run_ids: Iterable[str]) -> list[UnderWay]:
    """Those of the runs whose lease is held, in their order; one whose lease cannot be looked at is not among them."""
    return [_read(store.run_dir(run_id), run_id) for run_id in run_ids if _is_held(store, run_id)]


def _is_held(store: RecordStore, run_id: str) -> bool:
    with suppress(DiskError, UnknownNameError):
        return not is_free(store.run_dir(run_id) / LEASE_NAME)
    return False


def _read(folder: Path, run_id: str) -> UnderWay:
    step = _last_step(folder / METRICS_NAME)
    numbers = {name: value for name, value in step.items() if isinstance(value, int | float)}
    at = numbers.get("step")
    return UnderWay(run_id, None if at is None else int(at), numbers.get("loss"), numbers.get("tokens_per_second"))


def _last_step(path: Path) -> dict[str, Any]:
    """The last whole step of a file that is being written; empty where there is none yet."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return {}
    for line in reversed(lines):
        with suppress(ValueError, RecursionError):
            values = parse_json(line)
            if isinstance(values, dict) and values.get("kind") == "step":
                return values
    return {}
