"""Where runs lie on disk, and the only code that writes or reads their records and what lies beside them.

OUTPUT/runs/<run_id>/record.json        how the run ended; written whole or not at all
                     metrics.jsonl      every step
                     documents/*.parquet  per-document results, the base model's beside the adapter's
                     adapter/           PEFT's format
                     checkpoints/       while it runs
OUTPUT/results/                         views, rebuilt from the records
OUTPUT/base_scores/                     what base models score, kept for later runs

A record holds a hash of itself and of every file beside it. Whatever is taken from such a file is taken from bytes that
were compared with that hash; a file that the record does not list is not believed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import ValidationError

from lorabench.core.errors import ConfigError, DataError, DiskError, UnknownNameError, near_matches
from lorabench.core.locks import exclusively
from lorabench.core.revisions import file_revision
from lorabench.core.storage import read_regular, set_aside, sha256_file, write_atomically
from lorabench.records.answers import AnswerResults, parse_answers
from lorabench.records.documents import DocumentResults, parse_documents
from lorabench.records.measured import Answers
from lorabench.records.reading import DamagedFileError, kind_of, parse_json, reason_of
from lorabench.records.schema import SCHEMA_VERSION, RunRecord, Scores, Status
from lorabench.records.versions import record_from_json, record_to_json

Content = TypeVar("Content")

RECORD_NAME = "record.json"
METRICS_NAME = "metrics.jsonl"
LEASE_NAME = "lease"
MAX_RECORD_BYTES = 64_000_000
FINISHED = frozenset({Status.COMPLETED, Status.STOPPED_EARLY})
"""How runs end whose files are hashed in their record."""
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_SET_ASIDE = re.compile(r"\.damaged-\d{8}-\d{6}(-\d+)?$")
_FOLDERS = ("documents", "adapter", "checkpoints")
_READ_BY_LOADERS = re.compile(r"adapter_.*|.*\.safetensors")


class RecordProblem(DiskError):
    """A record, or another entry of `runs/`, that cannot be used."""

    def __init__(self, path: Path, sentence: str) -> None:
        super().__init__(f"{path}: {sentence}")
        self.path = path


class DamagedRecordError(RecordProblem):
    """A record that is there but cannot be trusted."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, f"the record is damaged: {reason}; the run will be done again")


class RecordStore:
    """The runs of one output folder."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.runs_dir = output_dir / "runs"
        self.results_dir = output_dir / "results"
        self.base_scores_dir = output_dir / "base_scores"
        self._known: dict[str, tuple[tuple[int, int, int, int], RunRecord]] = {}

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
        return [name for name in self._entries() if self._has_record(name)]

    def _entries(self) -> list[str]:
        """What lies in `runs/`, sorted, apart from hidden names and what was set aside."""
        try:
            names = os.listdir(self.runs_dir)
        except (FileNotFoundError, NotADirectoryError):
            return []  # whoever wants to write there says what is in the way
        except OSError as error:
            raise DiskError(f"{self.runs_dir}: the runs cannot be listed: {error.strerror}") from None
        return sorted(name for name in names if not name.startswith(".") and not _SET_ASIDE.search(name))

    def _has_record(self, name: str) -> bool:
        return bool(_RUN_ID.fullmatch(name)) and os.path.lexists(self.runs_dir / name / RECORD_NAME)

    # Records

    def write(self, record: RunRecord) -> None:
        """Write the record whole or not at all, with a hash of its content inside."""
        values = record_to_json(record)
        values["record_sha256"] = _digest(values)
        text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=False)
        path = self.run_dir(record.run_id) / RECORD_NAME
        write_atomically(path, text.encode("utf-8", errors="backslashreplace"))

    def read(self, run_id: str) -> RunRecord | None:
        """The run's record, or None where there is none.

        Raises DamagedRecordError when it cannot be trusted, RecordProblem when it cannot be read by this lorabench.
        """
        path = self.run_dir(run_id) / RECORD_NAME
        content = self._read_record(path)
        if content is None:
            return None
        try:
            values = parse_json(content)
            expected = values.pop("record_sha256")
            if _digest(values) != expected:
                raise DamagedRecordError(path, "its content does not match its hash")
            if values["run_id"] != run_id:
                raise DamagedRecordError(path, f"it is the record of {values['run_id']}")
            if values["schema_version"] > SCHEMA_VERSION:
                raise RecordProblem(path, "the record was written by a newer lorabench; use that one for this folder")
            record = record_from_json(values)
        except ConfigError as error:
            raise RecordProblem(path, f"it was made with what is not installed here: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError):
            raise DamagedRecordError(path, "it is not a whole record") from None
        if not all(map(_is_inside, record.files)):
            raise DamagedRecordError(path, "it names files outside its folder")
        return record

    def _read_record(self, path: Path) -> bytes | None:
        try:
            return read_regular(path, MAX_RECORD_BYTES)
        except PermissionError as error:
            raise RecordProblem(path, f"the record cannot be read: {error.strerror}") from None
        except OSError as error:
            if os.path.lexists(path):
                raise DamagedRecordError(path, reason_of(error).replace("missing", "a link to nothing")) from None
            if os.path.lexists(path.parent) and not os.path.isdir(path.parent):
                reason = f"{kind_of(path.parent)} lies where the run's folder belongs"
                raise DamagedRecordError(path.parent, reason) from None
            return None

    def get(self, run_id: str) -> RunRecord:
        """The run's record. Raises UnknownNameError with near matches."""
        record = self.read(run_id)
        if record is None:
            raise UnknownNameError(
                f"{run_id}: {self.runs_dir} has no record of such a run.{near_matches(run_id, self.run_ids())}"
            )
        return record

    def read_all(self) -> tuple[list[RunRecord], list[RecordProblem]]:
        """Every record that can be trusted, and what is wrong with the other entries of `runs/`.

        A file is read once by a store for as long as it stays as it is.
        """
        records: list[RunRecord] = []
        problems: list[RecordProblem] = []
        for name in self._entries():
            if not self._has_record(name):
                problems += self._problem_without_record(name)
                continue
            try:
                record = self._read_if_changed(name)
            except RecordProblem as problem:
                problems.append(problem)
            else:
                records += [] if record is None else [record]
        return records, problems

    def _problem_without_record(self, name: str) -> list[RecordProblem]:
        """What is wrong with an entry that has no record; nothing where a run was begun and is not at its end."""
        path = self.runs_dir / name
        if not _RUN_ID.fullmatch(name):
            return [RecordProblem(path, "this is no name of a run; move it elsewhere")]
        if not os.path.isdir(path):
            sentence = f"{kind_of(path)} lies where a run's folder belongs; lorabench run sets it aside"
            return [RecordProblem(path, f"{sentence} and does the run")]
        has_results = os.path.lexists(path / "adapter") or any(
            not scored.name.startswith("rung-") for scored in (path / "documents").glob("[!.]*")
        )
        if os.path.lexists(path / LEASE_NAME) and not has_results:
            return []
        return [RecordProblem(path, f"there is no {RECORD_NAME}; lorabench run does the run again, or is at it")]

    def _read_if_changed(self, run_id: str) -> RunRecord | None:
        try:
            state = (self.run_dir(run_id) / RECORD_NAME).stat()
        except OSError:
            return self.read(run_id)
        stamp = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        known = self._known.get(run_id)
        if known is not None and known[0] == stamp:
            return known[1]
        record = self.read(run_id)
        if record is not None:
            self._known[run_id] = stamp, record
        return record

    # What lies beside a record

    def read_file(self, record: RunRecord, name: str) -> bytes:
        """The bytes of a file beside the record, read once and compared with the record's hash.

        Raises DamagedFileError, which names the file and says why, where they are not those that the run wrote.
        """
        return self._verified(record, name, read_regular, lambda content: hashlib.sha256(content).hexdigest())

    def _verified(
        self, record: RunRecord, name: str, read: Callable[[Path], Content], digest_of: Callable[[Content], str]
    ) -> Content:
        path = self.run_dir(record.run_id) / name
        if name not in record.files:
            raise DamagedFileError(path, "the record does not list it")
        try:
            content = read(path)
        except OSError as error:
            raise DamagedFileError(path, reason_of(error)) from None
        if digest_of(content) != record.files[name]:
            raise DamagedFileError(path, "it is not as it was written (its hash is not the record's)")
        return content

    def documents(self, record: RunRecord, split: str, expected: Scores) -> DocumentResults | None:
        """Per-document results of `validation`, `test` or `also_on-<dataset>`, whose sums the record has as `expected`.

        None where the run has none. Raises DamagedFileError.
        """
        name = record.test_documents if split == "test" else f"documents/{split}.parquet"
        if not self._is_there(record, name):
            return None
        try:
            return parse_documents(self.read_file(record, name), expected)
        except ValueError as error:
            raise DamagedFileError(self.run_dir(record.run_id) / name, f"it cannot be used: {error}") from None

    def answers(self, record: RunRecord, answers: Answers) -> AnswerResults:
        """Both models' answers to each question of a split, which the record sums up. Raises DamagedFileError."""
        try:
            return parse_answers(self.read_file(record, answers.documents), answers)
        except ValueError as error:
            path = self.run_dir(record.run_id) / answers.documents
            raise DamagedFileError(path, f"it cannot be used: {error}") from None

    def metrics(self, record: RunRecord, max_lines: int | None = None) -> list[dict[str, object]]:
        """The lines of metrics.jsonl. Raises DamagedFileError.

        With `max_lines` at most so many, evenly spread, the first and the last among them: what a picture needs, at
        the cost of reading but not of parsing the file. A run that did not finish has no hashes: its lines are given
        as they are (`has_checked_metrics` says so), without those that are damaged or were cut short by a kill.
        """
        if record.status in FINISHED or METRICS_NAME in record.files:
            content = self.read_file(record, METRICS_NAME) if self._is_there(record, METRICS_NAME) else b""
        else:
            try:
                content = read_regular(self.run_dir(record.run_id) / METRICS_NAME)
            except OSError:
                content = b""
        lines = content.splitlines()
        if max_lines is not None and len(lines) > max_lines > 1:
            lines = [lines[i * (len(lines) - 1) // (max_lines - 1)] for i in range(max_lines)]
        found = []
        for line in lines:
            try:
                values = parse_json(line)
            except ValueError:
                continue
            if isinstance(values, dict):
                found.append(values)
        return found

    def has_checked_metrics(self, record: RunRecord) -> bool:
        """Whether the curve of a run is compared with a hash when it is read."""
        return METRICS_NAME in record.files

    def _is_there(self, record: RunRecord, name: str) -> bool:
        """Whether a file is listed or lies there; one of the two alone is damage, which reading it says."""
        return name in record.files or os.path.lexists(self.run_dir(record.run_id) / name)

    def check_adapter(self, record: RunRecord) -> None:
        """Compare every byte of the run's adapter with the record before it is loaded. Raises DamagedFileError."""
        folder = self.run_dir(record.run_id) / "adapter"
        listed = [name for name in record.files if name.startswith("adapter/")]
        if not listed:
            raise DamagedFileError(folder, "the record does not list it")
        for name in listed:
            self._verified(record, name, sha256_file, str)
        for path in sorted(folder.iterdir()):
            if _READ_BY_LOADERS.fullmatch(path.name) and f"adapter/{path.name}" not in listed:
                raise DamagedFileError(path, "the record does not list it")

    def damaged_files(self, record: RunRecord) -> list[str]:
        """The files beside the record that are gone or not as they were written, by their names in the record."""
        folder = self.run_dir(record.run_id)
        return [name for name, digest in record.files.items() if _hash_of(folder / name) != digest]

    # Setting aside

    def set_aside(self, run_id: str, name: str = RECORD_NAME) -> Path:
        """Move a file of the run out of the way, never deleting it; returns where it lies now."""
        return set_aside(self.run_dir(run_id) / name)

    def make_room(self, run_id: str) -> list[str]:
        """Set aside what lies where the run's folder or its lease belongs; a sentence for each. Needs no lease."""
        folder = self.run_dir(run_id)
        moved = _move_away(folder, folder, lambda path: os.path.isdir(path) and not self._leads_into_runs(path))
        for name in _FOLDERS:
            moved += _move_away(folder / name, folder, lambda path: not self._leads_into_runs(path))
        return moved + _move_away(folder / LEASE_NAME, folder, os.path.isfile)

    def _leads_into_runs(self, path: Path) -> bool:
        """Whether it is a link to what another run owns, which would be changed through it."""
        return os.path.islink(path) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.runs_dir))

    def make_room_inside(self, run_id: str) -> list[str]:
        """Set aside what lies within the run's folder where something else belongs. Needs the lease."""
        folder = self.run_dir(run_id)
        moved = _move_away(folder / METRICS_NAME, folder, os.path.isfile)
        for name in _FOLDERS:
            moved += _move_away(folder / name, folder, os.path.isdir)
        for path in sorted((folder / "documents").glob("[!.]*")):
            if not _SET_ASIDE.search(path.name):
                moved += _move_away(path, folder, os.path.isfile)
        return moved


def load_records(output_dir: Path) -> list[RunRecord]:
    """Every trustworthy record under `output_dir`, by run id."""
    return RecordStore(output_dir).read_all()[0]


def check_adapter_of_run(folder: Path) -> None:
    """Where `folder` is the adapter of a run, compare it with the run's record. Raises DiskError for a damaged one."""
    run = folder.absolute().parent
    if folder.name != "adapter" or run.parent.name != "runs" or not _RUN_ID.fullmatch(run.name):
        return
    store = RecordStore(run.parent.parent)
    record = store.read(run.name)
    if record is not None:
        store.check_adapter(record)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return str(path) == name and name != "." and ".." not in path.parts and not path.is_absolute() and "\0" not in name


def _move_away(path: Path, folder: Path, is_right: Callable[[Path], bool]) -> list[str]:
    """Set `path` aside where it is there and not of the right kind, alone among processes."""
    if not os.path.lexists(path) or is_right(path):
        return []
    with exclusively(folder):
        if not os.path.lexists(path) or is_right(path):
            return []  # another process was quicker
        kind = f"a link to {os.readlink(path)}" if path.is_symlink() and path.exists() else kind_of(path)
        return [f"{path} is {kind}; it was set aside as {set_aside(path).name}"]


def _hash_of(path: Path) -> str | None:
    try:
        return file_revision(path)
    except DataError:
        return None


def _digest(values: object) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
