"""The experiments that lie in one output folder: each is one question and is reported by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorabench.core.errors import UnknownNameError
from lorabench.experiment.schema import NAME
from lorabench.records.asked import Asked, read_asked
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore

FOLDER = "experiments"
"""In the results folder; in it a folder for each experiment."""


@dataclass(frozen=True)
class Part:
    """An experiment's runs. A run may be of several experiments."""

    name: str
    records: tuple[RunRecord, ...]
    """Recorded under the name, or asked for by its plan."""
    asked: tuple[Asked, ...]

    @property
    def last_at(self) -> str:
        """When it was last begun or a run of it last ended; ISO 8601, empty where nothing says."""
        ended = [record.finished_at or record.started_at for record in self.records if record.experiment == self.name]
        return max([one.started_at for one in self.asked] + [moment for moment in ended if moment], default="")


def experiments_of(records: Sequence[RunRecord], asked: Sequence[Asked]) -> list[Part]:
    """Every experiment, the latest first."""
    names = {record.experiment for record in records} | {one.name for one in asked}
    parts = [_part(name, records, asked) for name in sorted(names)]
    return sorted(parts, key=lambda part: part.last_at, reverse=True)


def folder_of_known(name: str, store: RecordStore) -> Path:
    """The folder of an experiment of which there is a run. Raises UnknownNameError where there is none."""
    parts = experiments_of(store.read_all()[0], read_asked(store.output_dir)[0])
    folders = {part.name: folder for part in parts if (folder := folder_of(part.name, store.results_dir)) is not None}
    if name not in folders:
        known = ", ".join(sorted(folders)) or "none"
        raise UnknownNameError(f"--experiment {name}: no run here is of it; there are: {known}")
    return folders[name]


def folder_of(name: str, results: Path) -> Path | None:
    """Where an experiment's own results lie; None for a name that `lorabench run` would not take."""
    return results / FOLDER / name if re.fullmatch(NAME, name) else None


def _part(name: str, records: Sequence[RunRecord], asked: Sequence[Asked]) -> Part:
    own = tuple(one for one in asked if one.name == name)
    planned = {run_id for one in own for run_id in one.runs}
    return Part(name, tuple(item for item in records if item.experiment == name or item.run_id in planned), own)
