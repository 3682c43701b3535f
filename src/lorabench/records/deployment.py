"""What was measured of a form in which a run could be shipped, and where those records lie.

OUTPUT/deployments/<run_id>/constraints.json            what was asked for last
                            <form>/record.json          with a hash of itself and of the files beside it
                                   validation.parquet   per-document results, as those of runs
                                   test.parquet
                                   answers-validation.parquet, answers-test.parquet, where the run answered
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import Field, ValidationError

from lorabench.core.canonical import fingerprint
from lorabench.core.errors import DiskError
from lorabench.core.formatting import number, size
from lorabench.core.revisions import safe_name
from lorabench.core.storage import read_regular, write_atomically
from lorabench.records.answers import AnswerResults, parse_answers
from lorabench.records.documents import DocumentResults, parse_documents
from lorabench.records.measured import Answers, Facts
from lorabench.records.reading import DamagedFileError, parse_json, reason_of
from lorabench.records.schema import Environment, Scores, Status

SCHEMA_VERSION = 1
RECORD_NAME = "record.json"
CONSTRAINTS_NAME = "constraints.json"


class Divergence(Facts):
    """Of a form's next-token distributions from those of the unquantised adapter, over the same positions."""

    num_tokens: int
    kl_mean: float
    """Nats."""
    kl_p99: float
    """99th percentile over positions, nats."""
    top1_agreement: float
    """Share of positions at which both find the same token likeliest."""


class Round(Facts):
    """What it costs to use a form, measured in one fresh process."""

    load_seconds: float
    """From a process that has imported its libraries to a model that can answer."""
    resident_bytes: int
    """Of the process, once the model is loaded."""
    peak_bytes: int
    """Of the process, at its end."""
    weight_bytes: int | None = None
    """Of the model's tensors as they are held; null in earlier records."""
    ttft_seconds_128: float | None
    """To the first token after a prompt of 128 tokens; null where the model's context is too short."""
    ttft_seconds_512: float | None
    prefill_tokens_per_second: float
    """Of the longer of these prompts."""
    decode_tokens_per_second: float
    """One sequence."""
    decode_tokens_per_second_8: float | None
    """Eight sequences at once, all of them counted."""
    decode_joules_per_token: float | None = None
    """Of the whole processor, or of the card, one sequence; null where its counters cannot be read."""
    device_bytes: int | None = None
    """Of the card's memory, once the model is loaded; null on processors, and where the card does not tell."""
    device_peak_bytes: int | None = None
    """At the end."""


class DeploymentRecord(Facts):
    """One form of one run, whatever became of it."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    form: str
    engine: str
    status: Status
    status_reason: str | None = None
    notes: tuple[str, ...] = ()
    """How it was made."""
    real_types: dict[str, int] = Field(default_factory=dict)
    """Tensors by the type that they really have."""
    disk_bytes: int | None = None
    """Of everything that is needed to use it: of an adapter its base too."""
    made: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the files of the form, by name."""
    adapter_sha256: str = ""
    """Of the run's record of its adapter: a form of another one is made again."""
    validation: Scores | None = None
    test: Scores | None = None
    divergence: Divergence | None = None
    answers: tuple[Answers, ...] = ()
    """By split, where the run was asked to answer: the form's as `adapted`, the unquantised adapter's as `base`."""
    rounds: tuple[Round, ...] = ()
    threads: int | None = None
    device: str = "cpu"
    """Where it was timed last; `cpu`, or torch's name of a GPU."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of what made and ran it."""
    environment: Environment
    measured_at: str
    """ISO 8601, UTC."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the files beside the record."""

    def median(self, name: str) -> float | None:
        """Of a figure over the rounds that have it; None where none has."""
        values = [value for value in (getattr(one, name) for one in self.rounds) if value is not None]
        return float(median(values)) if values else None

    def spread(self, name: str) -> tuple[float | None, float | None]:
        """Of a figure over the rounds that have it: the lowest and the highest; (None, None) where none has."""
        values = [value for value in (getattr(one, name) for one in self.rounds) if value is not None]
        return (float(min(values)), float(max(values))) if values else (None, None)

    @property
    def peak_memory(self) -> float | None:
        """Bytes that using it took at most: of the card where it ran on one that tells, else of the process."""
        on_card = self.median("device_peak_bytes")
        return self.median("peak_bytes") if on_card is None else on_card


class Constraints(Facts):
    """What the user cannot go without; null: whatever it is."""

    max_memory_bytes: float | None = None
    """At its peak: resident, or on the card."""
    min_decode: float | None = None
    """Tokens a second, one sequence."""
    max_disk_bytes: float | None = None

    def broken_by(self, record: DeploymentRecord) -> str | None:
        """Which of them a form breaks, in words; None where it keeps all."""
        memory, decode = record.peak_memory, record.median("decode_tokens_per_second")
        if self.max_memory_bytes is not None and (memory is None or memory > self.max_memory_bytes):
            return f"it needs {size(memory)} of memory"
        if self.min_decode is not None and (decode is None or decode < self.min_decode):
            return f"it writes {number(decode, 3)} tokens/s"
        if self.max_disk_bytes is not None and (record.disk_bytes or math.inf) > self.max_disk_bytes:
            return f"it takes {size(record.disk_bytes)} of disk"
        return None

    def __str__(self) -> str:
        """In words; empty where everything is accepted."""
        parts = []
        if self.max_memory_bytes is not None:
            parts.append(f"at most {size(self.max_memory_bytes)} of memory")
        if self.max_disk_bytes is not None:
            parts.append(f"at most {size(self.max_disk_bytes)} of disk")
        if self.min_decode is not None:
            parts.append(f"at least {number(self.min_decode, 3)} tokens/s")
        return ", ".join(parts)


class DeploymentStore:
    """The deployments of one output folder."""

    def __init__(self, output_dir: Path) -> None:
        self.folder = output_dir / "deployments"

    def form_dir(self, run_id: str, form: str) -> Path:
        """Where the record of a form lies; its files are made in there and removed when it is measured."""
        return self.folder / run_id / safe_name(form.replace(":", "-"))

    def write(self, record: DeploymentRecord) -> None:
        """Write the record whole or not at all, with a hash of its content inside."""
        values = record.model_dump(mode="json")
        text = json.dumps({**values, "record_sha256": _digest(values)}, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(self.form_dir(record.run_id, record.form) / RECORD_NAME, text.encode())

    def read(self, run_id: str, form: str) -> DeploymentRecord | None:
        """The record of a form; None where there is none. Raises DiskError for one that cannot be trusted."""
        return self._read(self.form_dir(run_id, form) / RECORD_NAME)

    def read_all(self) -> tuple[list[DeploymentRecord], list[DiskError]]:
        """Every record that can be trusted, by run and form, and what is wrong with the others."""
        records, problems = [], []
        for path in sorted(self.folder.glob(f"*/*/{RECORD_NAME}")):
            try:
                record = self._read(path)
            except DiskError as problem:
                problems.append(problem)
            else:
                if record is not None:
                    records.append(record)
        return records, problems

    def write_constraints(self, run_id: str, constraints: Constraints) -> None:
        """Keep what was asked for last of a run's forms, so that every view chooses alike."""
        path = self.folder / run_id / CONSTRAINTS_NAME
        write_atomically(path, constraints.model_dump_json(exclude_none=True).encode())

    def constraints(self, run_id: str) -> Constraints:
        """What was asked for last; nothing where nothing was. Raises DamagedFileError."""
        path = self.folder / run_id / CONSTRAINTS_NAME
        try:
            return Constraints.model_validate(parse_json(read_regular(path)))
        except FileNotFoundError:
            return Constraints()
        except (OSError, ValueError) as error:
            reason = reason_of(error) if isinstance(error, OSError) else "it holds no constraints"
            raise _damaged(path, reason, "writes it again") from None

    def documents(self, record: DeploymentRecord, split: str) -> DocumentResults | None:
        """Per-document results of `validation` or `test`; None where there are none. Raises DamagedFileError."""
        expected = record.validation if split == "validation" else record.test
        name = f"{split}.parquet"
        if expected is None or name not in record.files:
            return None
        try:
            return parse_documents(self._read_file(record, name), expected)
        except ValueError as error:
            path = self.form_dir(record.run_id, record.form) / name
            raise _damaged(path, f"it cannot be used: {error}") from None

    def answers(self, record: DeploymentRecord, answers: Answers) -> AnswerResults:
        """To each question of a split. Raises DamagedFileError."""
        try:
            return parse_answers(self._read_file(record, answers.documents), answers)
        except ValueError as error:
            path = self.form_dir(record.run_id, record.form) / answers.documents
            raise _damaged(path, f"it cannot be used: {error}") from None

    def _read_file(self, record: DeploymentRecord, name: str) -> bytes:
        """A file beside a record, once its hash was compared."""
        path = self.form_dir(record.run_id, record.form) / name
        try:
            content = read_regular(path)
        except OSError as error:
            raise _damaged(path, reason_of(error)) from None
        if hashlib.sha256(content).hexdigest() != record.files.get(name):
            raise _damaged(path, "it is not as it was written (its hash is not the record's)")
        return content

    def _read(self, path: Path) -> DeploymentRecord | None:
        try:
            content = read_regular(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _damaged(path, reason_of(error)) from None
        try:
            values: dict[str, Any] = parse_json(content)
            expected = values.pop("record_sha256")
            record = DeploymentRecord.model_validate(values)
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
            raise _damaged(path, "it is not a whole record") from None
        if _digest(values) != expected or self.form_dir(record.run_id, record.form) != path.parent:
            raise _damaged(path, "its content does not match its hash or its place")
        return record


def _digest(values: dict[str, Any]) -> str:
    return fingerprint(values)


def _damaged(path: Path, reason: str, remedy: str = "measures the form again") -> DamagedFileError:
    error = DamagedFileError(path, reason)
    error.args = (f"{path}: {reason}; lorabench deploy {remedy}",)
    return error
