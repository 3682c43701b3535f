"""The finished run that is to be used elsewhere: its record, its verified adapter and its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorabench.core.errors import InputError
from lorabench.core.progress import Progress
from lorabench.models.entry import ModelLocation
from lorabench.models.locate import locate_model
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import RecordStore


@dataclass(frozen=True)
class Subject:
    """A run whose adapter and base are here, byte for byte those of its record."""

    record: RunRecord
    adapter: Path
    location: ModelLocation

    @classmethod
    def of(cls, run_id: str, output_dir: Path, progress: Progress | None = None) -> Subject:
        """Find a run's parts and check them; the base is fetched where it is not here.

        Raises InputError where the run did not complete or its base has changed since, DiskError for damaged files.
        """
        store = RecordStore(output_dir)
        record = store.get(run_id)
        if record.status is not Status.COMPLETED:
            raise InputError(f"{run_id}: the run is {record.status}, so it left no adapter to take away")
        store.check_adapter(record)
        location = locate_model(record.references.get("model", record.spec.model), progress=progress)
        if location.revision != record.spec.model_revision:
            raise InputError(
                f"{run_id}: the base {location.name} is not the one that the run adapted: its revision is "
                f"{location.revision[:12]}, the record's {record.spec.model_revision[:12]}"
            )
        return cls(record, store.run_dir(run_id) / "adapter", location)
