"""A run's record while it is being made: what is known of it so far, and how what ended a run is put into words."""

from __future__ import annotations

import math
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorabench.core.canonical import fingerprint
from lorabench.core.errors import DivergedError, LorabenchError, ModelError, OutOfMemoryRunError, system_error
from lorabench.core.redaction import without_secrets
from lorabench.core.revisions import given_name
from lorabench.core.storage import new_folder, remedy, sha256_file
from lorabench.records import provenance
from lorabench.records.schema import AdapterFacts, Budget, DatasetFacts, ModelFacts, RunRecord, Status
from lorabench.runs.group import write_table
from lorabench.runs.memory import is_out_of_memory
from lorabench.trackers.jsonl import METRICS_NAME

if TYPE_CHECKING:
    import pandas as pd

    from lorabench.corpora.documents import Corpus
    from lorabench.experiment.plan import PlannedRun
    from lorabench.experiment.schema import RunSpec
    from lorabench.methods.adapter import Adapter
    from lorabench.methods.portable import BaseReference
    from lorabench.models.entry import ModelLocation
    from lorabench.runs.group import GroupWork

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "model.safetensors")

CLOCK_TOLERANCE_SECONDS = 30.0
"""Ordinary corrections of the wall clock stay below this."""


@dataclass
class Draft:
    """The record of a run as far as it is known; a failure keeps what was measured before it."""

    folder: Path
    """The run's own."""
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    """Per-document results written so far, by their names within the folder."""
    record: RunRecord | None = None
    """Set once the run is completed; nothing that goes wrong afterwards takes that back."""
    _clock: float = field(default_factory=lambda: time.time() - _steady_clock())

    def describe(self, work: GroupWork, planned: PlannedRun, micro_batch_size: int) -> None:
        """Model, corpus and budget. Raises InputError where one is not what it was when the run was planned."""
        spec, location, tokeniser = planned.spec, work.shared.location, work.shared.tokeniser
        corpus = work.corpus(spec.dataset)
        check_model(work, spec)
        self.notes += _reservations(location, corpus)
        training_text, text = work.training_text(spec)
        rows = training_text.num_rows(spec.training.context_length)
        self.values.update(
            model=ModelFacts(
                name=location.name,
                revision=location.revision,
                source=location.info.source,
                family=location.info.family,
                num_parameters=work.shared.base.num_parameters,
                licence=location.info.licence,
                tokenizer_sha256=tokeniser.sha256,
                prefix_token_id=tokeniser.prefix_token_id,
                weights_note=location.info.weights_note,
                pinned=location.info.pinned,
            ),
            dataset=DatasetFacts(**corpus.info.model_dump(include=set(DatasetFacts.model_fields))),
            budget=Budget(
                train_bytes=sum(document.num_bytes for document in text.documents),
                train_documents=len(text.documents),
                train_tokens=training_text.num_tokens,
                num_rows=rows,
                steps=spec.training.epochs * -(-rows // spec.training.batch_size),
                epochs=spec.training.epochs,
                micro_batch_size=micro_batch_size,
                accumulation_steps=-(-spec.training.batch_size // micro_batch_size),
                training_text_sha256=fingerprint([document.hash for document in text.documents]),
            ),
        )

    def describe_adapter(self, work: GroupWork, alpha: float, adapter: Adapter) -> None:
        """What is trained, and by which computation."""
        paths = tuple(adapter.module_names)
        self.values["adapter"] = AdapterFacts(
            trainable_parameters=adapter.num_trainable,
            alpha=alpha,
            target_modules=tuple(sorted({path.rsplit(".", 1)[-1] for path in paths})),
            module_paths=paths,
            num_modules=len(paths),
            execution_path=work.shared.base.execution.kind,
            execution_reason=work.shared.base.execution.reason,
        )

    def keep(self, name: str, table: pd.DataFrame) -> None:
        """Write per-document results and remember that they belong to the run."""
        write_table(self.folder / "documents" / f"{name}.parquet", table)
        self.tables.append(f"documents/{name}.parquet")

    def save(self, adapter: Adapter, base: BaseReference) -> None:
        """Write the adapter whole or not at all, and note the hashes of everything that lies beside the record."""
        with new_folder(self.folder / "adapter") as temporary:
            adapter.save(temporary, base)
        files = [path for path in (self.folder / "adapter").rglob("*") if path.is_file()]
        num_bytes = sum(path.stat().st_size for path in files if path.name in ADAPTER_FILES)
        self.values["adapter"] = self.values["adapter"].model_copy(update={"adapter_bytes": num_bytes})
        files += [self.folder / name for name in [*self.tables, METRICS_NAME]]
        self.values["files"] = {
            path.relative_to(self.folder).as_posix(): sha256_file(path) for path in sorted(set(files))
        }

    def finish(self, status: Status, reason: str | None) -> RunRecord:
        """The record, without secrets."""
        moved = time.time() - _steady_clock() - self._clock
        if abs(moved) > CLOCK_TOLERANCE_SECONDS:
            self.notes.append(f"the machine's clock was moved by {moved:+.0f} s during the run; no duration uses it")
        return RunRecord(
            status=status,
            status_reason=None if reason is None else without_secrets(reason),
            finished_at=provenance.now(),
            notes=tuple(map(without_secrets, dict.fromkeys(self.notes))),
            **self.values,
        )


def check_model(work: GroupWork, spec: RunSpec) -> None:
    """Raise ModelError where a model folder is not what it was when the run was planned."""
    location = work.shared.location
    if location.info.source == "folder" and location.revision != spec.model_revision:
        raise ModelError(f"{location.folder}: the model changed while the experiment ran; start it again")


def check_finite(loss: float, step: int, what: str) -> None:
    """Raise DivergedError where a loss is no number."""
    if not math.isfinite(loss):
        raise DivergedError(step, what)


def failure(error: Exception) -> tuple[Status, str]:
    """The state and the one sentence for an error that ended a run."""
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
    return Status.FAILED, f"{type(error).__name__}: {message} ({Path(line.filename).name}, line {line.lineno})"


def _steady_clock() -> float:
    """Seconds that nobody can set, sleep of the machine included where the system counts it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _reservations(location: ModelLocation, corpus: Corpus) -> list[str]:
    """What the model and the corpus themselves take away from a result."""
    found = [
        f"{kind} {name} is not pinned: this is revision {revision}, and another day's newest may be another"
        for kind, name, revision, pinned in (
            ("model", location.name, location.revision, location.info.pinned),
            ("dataset", corpus.name, corpus.revision, corpus.info.pinned),
        )
        if not pinned
    ]
    if given_name(location.name) in corpus.info.contaminates:
        found.append(f"{location.name} was trained on {corpus.name}: its scores there flatter it")
    return found
