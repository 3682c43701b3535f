"""Makes forms of a run and measures each: whatever is measured stays, and a deployment that was stopped goes on."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorabench.core.device import Device, choose_device
from lorabench.core.errors import InputError, LorabenchError, RunError
from lorabench.core.locks import exclusively
from lorabench.core.machine import num_cores
from lorabench.core.progress import View
from lorabench.core.storage import new_folder, sha256_file
from lorabench.deploy.answers import judged_again
from lorabench.deploy.engine import ENGINES, Source
from lorabench.deploy.form import Form
from lorabench.deploy.subject import Subject
from lorabench.deploy.wanted import make_forms, not_installed, possible_forms
from lorabench.deploy.worker import Job, JobKind
from lorabench.deploy.workshop import Workshop
from lorabench.records.deployment import Constraints, DeploymentRecord, DeploymentStore, Round
from lorabench.records.provenance import command_line, describe_environment, now
from lorabench.records.schema import Environment, RunRecord, Status

_MADE = "made"
"""The folder of a form's files within that of its record."""


@dataclass
class Deployment:
    """A run, and the forms of it that are wanted."""

    subject: Subject
    output_dir: Path
    forms: Sequence[Form]
    num_rounds: int
    threads: int
    device: Device
    view: View
    store: DeploymentStore = field(init=False)
    environment: Environment = field(init=False)

    def __post_init__(self) -> None:
        self.store = DeploymentStore(self.output_dir)
        self.environment = describe_environment(self.device, command_line())

    @property
    def record(self) -> RunRecord:
        """Of the run."""
        return self.subject.record

    @property
    def folder(self) -> Path:
        """Of the run's deployments."""
        return self.store.folder / self.record.run_id

    def measure(self) -> list[DeploymentRecord]:
        """Make and score what is missing, then time what was not timed, in alternating rounds."""
        with exclusively(self.folder / "workshop"):
            workshop = Workshop(self.subject, self.folder / "workshop")
            workshop.folder.mkdir(parents=True, exist_ok=True)
            try:
                for place, form in enumerate(self.forms, start=1):
                    self.view.phase(f"form {place} of {len(self.forms)}, {form.name}")
                    self._score(form, workshop)
                self._time()
            finally:
                if all(self._is_finished(form) for form in self.forms):
                    shutil.rmtree(workshop.folder, ignore_errors=True)
                    for form in self.forms:
                        shutil.rmtree(self._made(form), ignore_errors=True)
        return [record for form in self.forms if (record := self.store.read(self.record.run_id, form.name))]

    # What is there

    def known(self, form: Form) -> DeploymentRecord | None:
        """The record of a form of just this adapter; damaged ones and those of another adapter are made again.

        So are those from before the run answered what it has answered by now.
        """
        try:
            record = self.store.read(self.record.run_id, form.name)
        except LorabenchError as problem:
            self.view.message(str(problem))
            return None
        if record is None or record.adapter_sha256 != _adapter_hash(self.record):
            return None
        wanted = {answers.revision for answers in self.record.answers if judged_again(answers)}
        has_answered = wanted <= {answers.revision for answers in record.answers}
        return record if has_answered or record.status is not Status.COMPLETED else None

    def _is_finished(self, form: Form) -> bool:
        record = self.known(form)
        return record is not None and (
            record.status is not Status.COMPLETED or len(self._rounds(record)) >= self.num_rounds
        )

    def _rounds(self, record: DeploymentRecord) -> tuple[Round, ...]:
        """Those that were timed as is asked for now: on as many threads of the same device."""
        is_same = (record.threads, record.device) == (self.threads, str(self.device))
        return record.rounds if is_same else ()

    def _made(self, form: Form) -> Path:
        return self.store.form_dir(self.record.run_id, form.name) / _MADE

    # Making and scoring

    def _score(self, form: Form, workshop: Workshop) -> None:
        """Make and score a form that has no record yet; what cannot be made has a record that says why."""
        known = self.known(form)
        if known is not None and known.status is Status.COMPLETED:
            return
        try:
            notes = self._make(form, workshop)
            self._write_reference(workshop)
            self.view.phase(f"{form.name}: scoring validation and test")
            answer = self._work("score", form)
        except LorabenchError as problem:
            status = Status.OUT_OF_MEMORY if isinstance(problem, _OutOfMemory) else Status.FAILED
            self.store.write(self._new_record(form, status=status, status_reason=str(problem)))
            self.view.message(f"{form.name}: {problem}")
            return
        made = {path.name: sha256_file(path) for path in sorted(self._made(form).iterdir()) if path.is_file()}
        self.store.write(
            self._new_record(
                form,
                status=Status.COMPLETED,
                notes=tuple(notes),
                real_types=_real_types(self._made(form)),
                disk_bytes=self._disk_bytes(form),
                made=made,
                **answer,
            )
        )

    def _make(self, form: Form, workshop: Workshop) -> list[str]:
        target = self._made(form)
        if target.is_dir():
            return [workshop.note] if form.engine != "transformers" else []
        ENGINES.get(form.engine).require()
        form.check(self.subject)
        with new_folder(target) as folder:
            return form.write(workshop, folder)

    def _write_reference(self, workshop: Workshop) -> None:
        """The adapter's own next-token probabilities, once, by the run's adapter in float32."""
        if not self._reference(workshop.folder).is_file():
            self.view.phase("the adapter's own probabilities")
            source = self._source("reference", "transformers", self.subject.adapter)
            self._run_job("reference", source, workshop.folder)

    def _disk_bytes(self, form: Form) -> int:
        """Of everything that is needed to use the form."""
        files = [path for path in self._made(form).iterdir() if path.is_file()]
        if form.name.partition(":")[0] == "adapter":
            files += [path for path in self.subject.location.folder.iterdir() if path.suffix == ".safetensors"]
        return sum(path.stat().st_size for path in files)

    def _new_record(self, form: Form, **values: Any) -> DeploymentRecord:
        return DeploymentRecord(
            run_id=self.record.run_id,
            form=form.name,
            engine=form.engine,
            adapter_sha256=_adapter_hash(self.record),
            **self._how(),
            measured_at=now(),
            **values,
        )

    def _how(self) -> dict[str, Any]:
        return {"threads": self.threads, "device": str(self.device), "environment": self.environment}

    # Timing

    def _time(self) -> None:
        """Each round times every form that still wants one, each in a fresh process, before the next round begins."""
        for number in range(self.num_rounds):
            for form in self.forms:
                record = self.known(form)
                if record is None or record.status is not Status.COMPLETED or len(self._rounds(record)) > number:
                    continue
                self.view.phase(f"round {number + 1} of {self.num_rounds}, {form.name}")
                try:
                    measured = Round.model_validate(self._work("time", form))
                except LorabenchError as problem:
                    reason = f"it was scored, but could not be timed: {problem}"
                    self.store.write(record.model_copy(update={"status": Status.FAILED, "status_reason": reason}))
                    self.view.message(f"{form.name}: {reason}")
                    continue
                rounds = (*self._rounds(record), measured)
                self.store.write(record.model_copy(update={"rounds": rounds, **self._how()}))

    # Processes

    def _work(self, kind: JobKind, form: Form) -> dict[str, Any]:
        made = self._made(form)
        if not made.is_dir():  # it was measured before, and is timed again
            self._make(form, Workshop(self.subject, self.folder / "workshop"))
        return self._run_job(kind, self._source(form.name, form.engine, made), self.folder / "workshop")

    def _source(self, form: str, engine: str, folder: Path) -> Source:
        return Source(
            form=form,
            engine=engine,
            folder=folder.absolute(),
            base_folder=self.subject.location.folder,
            context_length=self.record.spec.training.context_length,
            threads=self.threads,
            device=str(self.device),
        )

    def _run_job(self, kind: JobKind, source: Source, workshop: Path) -> dict[str, Any]:
        """In a fresh process. Raises RunError with what went wrong there."""
        job = Job(
            kind=kind,
            run_id=self.record.run_id,
            output_dir=self.output_dir.absolute(),
            source=source,
            results=self.store.form_dir(self.record.run_id, source.form).absolute(),
            reference=self._reference(workshop).absolute(),
        )
        command = [sys.executable, "-m", "lorabench.deploy.worker"]
        with _ended(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        ) as worker:
            output, errors = worker.communicate(job.model_dump_json().encode())
        try:
            answer = json.loads(output.splitlines()[-1])
        except (IndexError, ValueError):
            lines = errors.decode(errors="replace").strip().splitlines()
            said = f": {lines[-1][:300]}" if lines else ""
            raise RunError(f"its process ended with {worker.returncode}{said}") from None
        if answer.get("out_of_memory"):
            raise _OutOfMemory("there is not enough memory for it")
        if "problem" in answer:
            raise RunError(answer["problem"])
        found: dict[str, Any] = answer["answer"]
        return found

    def _reference(self, workshop: Path) -> Path:
        return workshop / "reference.npy"


class _OutOfMemory(RunError):
    """The process of a form had not enough memory."""


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Whatever happens inside, the process does not outlive it."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def deploy_run(
    run_id: str,
    output_dir: Path,
    *,
    forms: Sequence[str] = (),
    num_rounds: int = 3,
    threads: int | None = None,
    device: str = "cpu",
    constraints: Constraints | None = None,
    is_strict: bool = True,
    view: View,
) -> list[DeploymentRecord]:
    """Make and measure forms of a finished run; without `forms`, every one that can be made here.

    What was measured before is not measured again; timed on other threads or another device, it is timed again.
    `constraints` replace those of an earlier deployment. Raises InputError before anything is made for forms and
    devices that there are not, and with `is_strict` MissingExtraError where one that was asked for by name needs what
    is not installed; else the record of that form says so.
    """
    where = choose_device(device)
    wanted = make_forms(forms, device)
    for engine in {form.engine for form in wanted} if is_strict else ():
        ENGINES.get(engine).check_device(device)
        ENGINES.get(engine).require()
    view.phase("reading the run")
    subject = Subject.of(run_id, output_dir, view.progress)
    for sentence in not_installed(forms, device) if is_strict else ():
        view.message(sentence)
    if not forms:
        wanted = possible_forms(wanted, subject, view)
    for form in wanted if is_strict else ():
        form.check(subject)
    deployment = Deployment(subject, output_dir, wanted, num_rounds, threads or num_cores(), where, view)
    deployment.store.write_constraints(run_id, constraints or Constraints())
    return deployment.measure()


def _adapter_hash(record: RunRecord) -> str:
    """Of the weights that the run left."""
    names = sorted(name for name in record.files if name.startswith("adapter/") and name.endswith(".safetensors"))
    if not names:
        raise InputError(f"{record.run_id}: the record lists no adapter")
    return record.files[names[0]]


def _real_types(folder: Path) -> dict[str, int]:
    """Tensors by type: of a GGUF file as it lists them, of a graph by its nodes, of safetensors by their headers."""
    from lorabench.models.shape import read_header

    if (folder / "model.onnx").is_file():
        from lorabench.deploy.engines import onnx

        return onnx.type_counts(folder)

    for path in folder.glob("*.gguf"):
        from lorabench.deploy.gguf.file import type_counts

        return type_counts(path)
    counts: dict[str, int] = {}
    for path in folder.glob("*.safetensors"):
        for name, tensor in read_header(path).items():
            if name != "__metadata__":
                counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + 1
    return counts
