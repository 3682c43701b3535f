"""Where runs lie on disk, and the only code that writes or reads their records.

OUTPUT/runs/<run_id>/record.json        how the run ended; written whole or not at all
                     metrics.jsonl      every step
                     documents/*.parquet  per-document results, the base model's beside the adapter's
                     adapter/           PEFT's format
                     checkpoints/       while it runs
OUTPUT/results/                         views, rebuilt from the records
OUTPUT/base_scores/                     what base models score, kept for later runs
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lorabench.cache import set_aside, write_atomically
from lorabench.content import file_revision
from lorabench.errors import DataError, DiskError, UnknownNameError, near_matches
from lorabench.record.schema import SCHEMA_VERSION, RunRecord, record_to_json

if TYPE_CHECKING:
    import pandas as pd

RECORD_NAME = "record.json"
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class RecordStore:
    """The runs of one output folder."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.runs_dir = output_dir / "runs"
        self.results_dir = output_dir / "results"
        self.base_scores_dir = output_dir / "base_scores"
        self._known: dict[str, tuple[tuple[int, int, int], RunRecord]] = {}

    def run_dir(self, run_id: str) -> Path:
        """The folder of a run; `run_id` must be a plain name."""
        if not _RUN_ID.fullmatch(run_id):
            shown = run_id if len(run_id) <= 80 else f"{run_id[:77]}…"
            raise UnknownNameError(f"{shown!r} is not a run id; lorabench plan prints them")
        return self.runs_dir / run_id

    def checkpoints_dir(self, run_id: str) -> Path:
        """Where the run's checkpoints lie while it runs."""
        return self.run_dir(run_id) / "checkpoints"

    def run_ids(self) -> list[str]:
        """Ids of the runs that have a record, sorted."""
        if not self.runs_dir.is_dir():
            return []
        names = (path.parent.name for path in self.runs_dir.glob(f"*/{RECORD_NAME}"))
        return sorted(name for name in names if _RUN_ID.fullmatch(name))

    def write(self, record: RunRecord) -> None:
        """Write the record whole or not at all, with a hash of its content inside."""
        values = record_to_json(record)
        values["record_sha256"] = _digest(values)
        text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=False)
        path = self.run_dir(record.run_id) / RECORD_NAME
        write_atomically(path, text.encode("utf-8", errors="backslashreplace"))

    def read(self, run_id: str) -> RunRecord | None:
        """The run's record, or None where there is none.

        Raises DamagedRecordError when it cannot be trusted, DiskError when it cannot be read by this lorabench.
        """
        path = self.run_dir(run_id) / RECORD_NAME
        try:
            values = json.loads(path.read_bytes())
            expected = values.pop("record_sha256")
            if _digest(values) != expected:
                raise DamagedRecordError(path, "its content does not match its hash")
            if values["run_id"] != run_id:
                raise DamagedRecordError(path, f"it is the record of {values['run_id']}")
            if values["schema_version"] > SCHEMA_VERSION:
                raise DiskError(f"{path}: the record was written by a newer lorabench; use that one for this folder")
            for key in ("base_validation", "base_test", "validation", "test"):
                if values.get(key):
                    values[key].pop("derived", None)
            record = RunRecord.model_validate(values)
            if any(".." in Path(name).parts or Path(name).is_absolute() for name in record.files):
                raise DamagedRecordError(path, "it names files outside its folder")
            return record
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            raise DamagedRecordError(path, "it is a folder") from None
        except OSError as error:
            raise DiskError(f"{path}: the record cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError):
            raise DamagedRecordError(path, "it is not a whole record") from None

    def set_aside(self, run_id: str, name: str = RECORD_NAME) -> Path:
        """Move a file of the run out of the way, never deleting it; returns where it lies now."""
        return set_aside(self.run_dir(run_id) / name)

    def damaged_files(self, record: RunRecord) -> list[str]:
        """The files beside the record that are gone or not as they were written, by their names in the record."""
        folder = self.run_dir(record.run_id)
        return [name for name, digest in record.files.items() if _hash_of(folder / name) != digest]

    def read_all(self) -> tuple[list[RunRecord], list[DamagedRecordError]]:
        """Every record that can be trusted, and what is wrong with the others.

        A file is read once by a store for as long as it stays as it is.
        """
        records, damaged = [], []
        for run_id in self.run_ids():
            try:
                record = self._read_if_changed(run_id)
            except DamagedRecordError as error:
                damaged.append(error)
            else:
                if record is not None:
                    records.append(record)
        return records, damaged

    def _read_if_changed(self, run_id: str) -> RunRecord | None:
        try:
            state = (self.run_dir(run_id) / RECORD_NAME).stat()
        except OSError:
            return self.read(run_id)
        stamp = (state.st_ino, state.st_size, state.st_mtime_ns)
        known = self._known.get(run_id)
        if known is not None and known[0] == stamp:
            return known[1]
        record = self.read(run_id)
        if record is not None:
            self._known[run_id] = stamp, record
        return record

    def get(self, run_id: str) -> RunRecord:
        """The run's record. Raises UnknownNameError with near matches."""
        record = self.read(run_id)
        if record is None:
            raise UnknownNameError(
                f"{run_id}: {self.runs_dir} has no record of such a run.{near_matches(run_id, self.run_ids())}"
            )
        return record

    def documents(self, run_id: str, split: str) -> pd.DataFrame | None:
        """Per-document results of `validation`, `test` or `also_on-<dataset>`; None where the run has none.

        Columns: document_hash, num_bytes, num_tokens, num_words, nll (nats, summed), base_nll. Raises DiskError where
        they are not those that the record was written with.
        """
        import pandas as pd

        name = f"documents/{split}.parquet"
        path = self.run_dir(run_id) / name
        if not path.is_file():
            return None
        record = self.read(run_id)
        if record is not None and record.files and _hash_of(path) != record.files.get(name):
            raise DiskError(f"{path}: the per-document results are damaged; lorabench run does the run again")
        try:
            return pd.read_parquet(path, use_threads=False)
        except (OSError, ValueError) as error:
            raise DiskError(f"{path}: the per-document results cannot be read: {error}") from None

    def document_columns(self, run_id: str, split: str) -> dict[str, list[Any]] | None:
        """The same as `documents` by column, read in a fraction of the time; None where the run has none."""
        import pyarrow.parquet

        path = self.run_dir(run_id) / "documents" / f"{split}.parquet"
        if not path.is_file():
            return None
        try:
            columns: dict[str, list[Any]] = pyarrow.parquet.ParquetFile(path).read(use_threads=False).to_pydict()
        except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MemoryError) as error:
            raise DiskError(f"{path}: the per-document results cannot be read: {error}") from None
        return columns

    def metrics(self, run_id: str, max_lines: int | None = None) -> Iterator[dict[str, object]]:
        """The lines of metrics.jsonl; a last line cut short by a kill is left out.

        With `max_lines` at most so many, evenly spread, the first and the last among them: what a picture needs, at
        the cost of reading but not of parsing the file.
        """
        path = self.run_dir(run_id) / "metrics.jsonl"
        if not path.is_file():
            return
        lines = path.read_bytes().splitlines()
        if max_lines is not None and len(lines) > max_lines > 1:
            lines = [lines[i * (len(lines) - 1) // (max_lines - 1)] for i in range(max_lines)]
        for line in lines:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, dict):
                yield values


class DamagedRecordError(DiskError):
    """A record that is there but cannot be trusted."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: the record is damaged: {reason}; the run will be done again")
        self.path = path


def load_records(output_dir: Path) -> list[RunRecord]:
    """Every trustworthy record under `output_dir`, by run id."""
    return RecordStore(output_dir).read_all()[0]


def _hash_of(path: Path) -> str | None:
    try:
        return file_revision(path)
    except DataError:
        return None


def _digest(values: object) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
