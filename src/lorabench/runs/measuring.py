"""Measures a finished adapter beside its run's own figures: on other corpora, and by what it writes.

Nothing here trains, and nothing here scores test: `evaluation.generate` alone answers it, once for what is asked for. A
measurement that fails takes nothing from a finished run: its record keeps its state and says what is missing, and the
same command tries it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lorabench.core.canonical import fingerprint
from lorabench.core.errors import CancelledError, ModelError
from lorabench.core.progress import View
from lorabench.core.redaction import without_secrets
from lorabench.core.storage import sha256_file
from lorabench.experiment.measurements import MeasurementRequest
from lorabench.methods.saved import saved_adapter
from lorabench.records.measured import Measurement
from lorabench.records.measurements import missing_in
from lorabench.records.provenance import now
from lorabench.records.schema import Drift, Environment, RunRecord, Sample, Sampling
from lorabench.records.store import RecordStore
from lorabench.runs.answering import Answering, with_answers
from lorabench.runs.context import RunContext
from lorabench.runs.failures import failure
from lorabench.runs.group import GroupWork, write_table
from lorabench.runs.loaded import LoadedBase
from lorabench.runs.preparing import check_model
from lorabench.runs.task import RunTask
from lorabench.runs.task_results import TasksDone, with_tasks
from lorabench.scoring.answers import Answers
from lorabench.scoring.documents import DocumentScores
from lorabench.scoring.tasks import TaskFigures

_NOT_MEASURED = "not measured"


@dataclass
class Measurements:
    """What is measured of one adapter: first `measure_base` without it, then `add_to` while it is attached."""

    work: GroupWork
    task: RunTask
    request: MeasurementRequest
    view: View
    problems: dict[str, str] = field(default_factory=dict)
    """By what could not be measured: the reason."""
    _base_scores: dict[str, DocumentScores] = field(default_factory=dict)
    _base_samples: list[Sample] | None = None
    _base_tasks: dict[str, dict[str, TaskFigures]] = field(default_factory=dict)
    _answering: list[tuple[Answering, Answers]] = field(default_factory=list)

    def measure_base(self) -> None:
        """The base's own figures. Call while no adapter is attached."""
        spec = self.task.spec
        for name in self.request.also_on:
            with self._noting(_drift_title(name)):
                scores = self.work.base_scores(name, "validation", spec)
                if not math.isfinite(scores.nll.sum()):
                    raise ModelError(f"{spec.model}: its own loss on {name} is not finite")
                self._base_scores[name] = scores
        if self.request.samples:
            with self._noting(_SAMPLES_TITLE):
                self._base_samples = self.work.base_samples(spec, self.request.samples)
        for task, revision in self.request.tasks.items():
            with self._noting(_task_title(task)):
                self._base_tasks[task] = self.work.base_tasks(task, revision, self.request.task_examples)

        request = self.request.answers
        for split in () if request is None else request.splits:
            if request is not None and (split != "test" or self.task.stop_reason is None):
                with self._noting(_answers_title(split)):
                    asked = Answering.of(self.work, spec, request, split)
                    self._answering.append((asked, asked.base_answers()))

    @property
    def is_possible(self) -> bool:
        """Whether anything is left to measure with the adapter."""
        return bool(self._base_scores) or self._base_samples is not None or bool(self._base_tasks or self._answering)

    def add_to(self, record: RunRecord, store: RecordStore, environment: Environment) -> RunRecord:
        """Measure the attached adapter: the record with all that could be measured, not written yet.

        Results go into files of new names, so that until the new record stands the earlier one is whole. A user who
        stops it keeps what was measured before.
        """
        measured, spec = record, self.task.spec
        with suppress(CancelledError, KeyboardInterrupt):
            for name, base in self._base_scores.items():
                with self._noting(_drift_title(name)):
                    measured = self._add_drift(measured, name, base, store, environment)
            if self._base_samples is not None:
                with self._noting(_SAMPLES_TITLE):
                    written = self.work.samples(spec, self.request.samples)
                    samples = tuple(
                        ours.model_copy(update={"base_continuation": theirs.continuation})
                        for ours, theirs in zip(written, self._base_samples, strict=True)
                    )
                    sampling = Sampling(num_asked=self.request.samples, measurement=self._how(environment))
                    measured = measured.model_copy(update={"samples": samples, "sampling": sampling})
            for task, figures in self._base_tasks.items():
                with self._noting(_task_title(task)):
                    self.view.phase(f"task {Path(task).name}")
                    adapted = self.work.tasks(task, self.request.task_examples)
                    done = TasksDone(task, self.request.tasks[task], figures, adapted, self._how(environment))
                    measured = with_tasks(measured, done, store.run_dir(record.run_id))
            for asked, answers in self._answering:
                with self._noting(_answers_title(asked.split)):
                    self.view.phase(f"answering {asked.split}")
                    folder, how = store.run_dir(record.run_id), self._how(environment)
                    measured = with_answers(measured, asked, answers, folder, how)
        measured = with_problems(measured, self.problems)
        notes = dict.fromkeys([*measured.notes, *self.work.shared.room.notes])
        return measured.model_copy(update={"notes": tuple(notes)})

    def _add_drift(
        self, record: RunRecord, name: str, base: DocumentScores, store: RecordStore, environment: Environment
    ) -> RunRecord:
        self.view.phase(f"drift on {name}")
        scores, corpus = self.work.score(name, "validation", self.task.spec), self.work.corpus(name)
        if not math.isfinite(scores.nll.sum()):
            raise ModelError(f"the adapter's loss on {name} is not finite")
        file = f"documents/also_on-{name}.parquet"
        if file in record.files:  # of another revision of the corpus: the record needs it until there is a new record
            file = f"documents/also_on-{name}@{fingerprint(corpus.revision)[:8]}.parquet"
        path = store.run_dir(record.run_id) / file
        write_table(path, scores.table(base))
        drift = Drift(
            dataset=name,
            revision=corpus.revision,
            base=base.total(),
            adapted=scores.total(),
            documents=file,
            measurement=self._how(environment),
        )
        kept = [other for other in record.drift if other.dataset != name]
        replaced = {other.documents for other in record.drift if other.dataset == name}
        files = {key: digest for key, digest in record.files.items() if key not in replaced}
        update = {"drift": (*kept, drift), "files": {**files, file: sha256_file(path)}}
        return record.model_copy(update=update)

    def _how(self, environment: Environment) -> Measurement:
        spec = self.task.spec
        return Measurement(
            validation_bytes=spec.evaluation.validation_bytes,
            context_length=spec.training.context_length,
            stride=spec.evaluation.stride,
            precision=spec.training.precision,
            quantization=spec.quantization,
            device=environment.device,
            device_name=environment.device_name,
            lorabench_version=environment.lorabench_version,
            code_sha256=environment.code_sha256,
            measured_at=now(),
        )

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Any failure inside becomes the reason why `what` could not be measured; stopping goes through."""
        try:
            yield
        except CancelledError:
            raise
        except Exception as error:
            self.problems[what] = failure(error)[1]


def measure_finished(context: RunContext, loaded: LoadedBase, task: RunTask, record: RunRecord) -> RunRecord:
    """Measure the saved adapter of a finished run as far as its record lacks something; returns the new record.

    Call with the run's lease, and only where the files beside the record are whole. Whatever fails is noted in the
    record; only a record that cannot be written is raised.
    """
    request, store = missing_in(record, task.measures), context.store
    try:
        work = loaded.open(task)
        check_model(work, task.spec)
        measurements = Measurements(work, task, request, context.view)
        measurements.measure_base()
        if measurements.is_possible:
            store.check_adapter(record)
            with saved_adapter(work.shared.base, store.run_dir(record.run_id) / "adapter"):
                if record.adapter is not None and record.adapter.execution_path == "reference":
                    work.shared.base.use_reference_path(record.adapter.execution_reason)
                measured = measurements.add_to(record, store, context.environment)
        else:
            measured = with_problems(record, measurements.problems)
    except (CancelledError, KeyboardInterrupt):
        return record
    except Exception as error:
        titles = [*map(_drift_title, request.also_on), *([_SAMPLES_TITLE] if request.samples else [])]
        titles += map(_task_title, request.tasks)
        titles += map(_answers_title, () if request.answers is None else request.answers.splits)
        measured = with_problems(record, dict.fromkeys(titles, failure(error)[1]))
    also_on = {key: without_secrets(path) for key, path in task.references.items() if key.startswith("also_on:")}
    measured = measured.model_copy(update={"references": {**measured.references, **also_on}})
    if measured != record:
        store.write(measured)
    for name in set(record.files) - set(measured.files):  # of an earlier revision of a corpus
        with suppress(OSError):
            (store.run_dir(record.run_id) / name).unlink()
    return measured


def with_problems(record: RunRecord, problems: Mapping[str, str]) -> RunRecord:
    """The record with what could not be measured among its notes, and without notes that are not true any more."""
    known = [*(_drift_title(drift.dataset) for drift in record.drift), *problems]
    known += [_SAMPLES_TITLE] if record.sampling is not None else []
    known += [_task_title(result.reference) for result in record.tasks]
    known += [_answers_title(answers.split) for answers in record.answers]
    outdated = tuple(f"{what}: {_NOT_MEASURED}" for what in known)
    notes = [note for note in record.notes if not note.startswith(outdated)]
    notes += [without_secrets(f"{what}: {_NOT_MEASURED}: {reason}") for what, reason in problems.items()]
    return record.model_copy(update={"notes": tuple(notes)})


def unmeasured_notes(record: RunRecord) -> list[str]:
    """What could not be measured, with the reasons."""
    return [note for note in record.notes if f": {_NOT_MEASURED}: " in note]


def _drift_title(name: str) -> str:
    return f"also on {name}"


def _task_title(task: str) -> str:
    return f"task {task}"


def _answers_title(split: str) -> str:
    return f"answers to {split}"


_SAMPLES_TITLE = "samples"
