"""Runs one record again, in a fresh process, from what the record holds, and compares."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lorabench.core.device import Device, choose_device
from lorabench.core.errors import InputError, RunError
from lorabench.core.storage import write_atomically
from lorabench.corpora.references import read_reference
from lorabench.experiment import identity
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import Experiment, build_experiment
from lorabench.records.schema import Environment, RunRecord, Scores, Status
from lorabench.records.store import RecordStore


@dataclass(frozen=True)
class Comparison:
    """One figure, then and now."""

    name: str
    recorded: float | str | None
    reproduced: float | str | None

    @property
    def same(self) -> bool:
        """Bit for bit."""
        return self.recorded == self.reproduced


@dataclass(frozen=True)
class Reproduction:
    """What came out the second time."""

    run_id: str
    surroundings: tuple[Comparison, ...]
    """What differs between then and now: hardware, packages, code."""
    figures: tuple[Comparison, ...]
    noise_bits_per_byte: float | None
    """Standard error of the recorded validation figure over its documents."""

    @property
    def identical(self) -> bool:
        """Whether every figure is the same, bit for bit."""
        return all(figure.same for figure in self.figures)


def experiment_of(record: RunRecord) -> Experiment:
    """The experiment of exactly this run: it trains and scores, and measures nothing beside."""
    spec = record.spec
    return build_experiment(
        {
            "name": "reproduction",
            "question": f"Does {record.run_id} come out the same again?"[:2000],
            "models": [record.references.get("model", spec.model)],
            "datasets": [read_reference(record.references.get("dataset", spec.dataset))],
            "text_field": record.references.get("text_field", "text"),
            "adapter": spec.adapter.model_dump(),
            "training": {key: value for key, value in spec.training.model_dump().items() if value is not None},
            "evaluation": {**spec.evaluation.model_dump(), "samples": 0},
            "seeds": [spec.seed],
        },
        where=f"{record.run_id}/record.json",
    )


def reproduce(run_id: str, output_dir: Path) -> Reproduction:
    """Do the run again under `output_dir/reproductions` and compare with its record.

    Raises InputError where the record does not describe a finished run or what it used has changed, RunError where the
    second run did not complete, DiskError before that where the record or its per-document results are damaged.
    """
    store = RecordStore(output_dir)
    recorded = store.get(run_id)
    if recorded.status is not Status.COMPLETED:
        raise InputError(f"{run_id}: the run is {recorded.status}, so there is nothing to reproduce")
    noise = _noise(store, recorded)
    experiment = experiment_of(recorded)
    device = _device_of(recorded)
    (planned,) = make_plan(experiment, device).runs
    if planned.run_id != identity.run_id(recorded.spec):
        raise InputError(f"{run_id}: {_changed_inputs(recorded, planned.spec.model_dump())}")
    folder = output_dir / "reproductions" / run_id
    attempt = folder / f"{sum(1 for _ in folder.glob('*')) + 1:03d}"
    file = attempt / "experiment.yaml"
    write_atomically(file, experiment.to_yaml().encode("utf-8"))
    command = [sys.executable, "-m", "lorabench", "run", str(file), "--output-dir", str(attempt), "--tracker", "none"]
    command += ["--device", str(device)]
    subprocess.run(command, check=False, stdout=sys.stderr)
    reproduced = RecordStore(attempt).read(planned.run_id)
    if reproduced is None or reproduced.status is not Status.COMPLETED:
        reason = "no record was written" if reproduced is None else reproduced.status_reason
        raise RunError(f"{run_id}: the second run did not complete: {reason}")
    return compare(recorded, reproduced, noise)


def _device_of(recorded: RunRecord) -> Device:
    """One of the kind that the run was on, where there is one here: the comparison names what differs."""
    try:
        return choose_device(recorded.environment.device)
    except InputError:
        return choose_device()


def compare(recorded: RunRecord, reproduced: RunRecord, noise: float | None) -> Reproduction:
    """Every figure of two records of one run."""
    figures = [
        *_scores("base validation", recorded.base_validation, reproduced.base_validation),
        *_scores("validation", recorded.validation, reproduced.validation),
        *_scores("test", recorded.test, reproduced.test),
        Comparison("last training loss", recorded.last_training_loss, reproduced.last_training_loss),
        Comparison(
            "adapter weights (SHA-256)",
            recorded.files.get("adapter/adapter_model.safetensors"),
            reproduced.files.get("adapter/adapter_model.safetensors"),
        ),
    ]
    for then, now in zip(recorded.evaluations, reproduced.evaluations, strict=False):
        figures += _scores(f"validation after step {then.step}", then.validation, now.validation)
    return Reproduction(
        run_id=recorded.run_id,
        surroundings=(
            *_surroundings(recorded.environment, reproduced.environment),
            *_computation(recorded, reproduced),
        ),
        figures=tuple(figures),
        noise_bits_per_byte=noise,
    )


def _scores(name: str, recorded: Scores | None, reproduced: Scores | None) -> list[Comparison]:
    return [
        Comparison(
            f"{name} (bits per byte)",
            None if recorded is None else recorded.bits_per_byte,
            None if reproduced is None else reproduced.bits_per_byte,
        )
    ]


def _surroundings(then: Environment, now: Environment) -> list[Comparison]:
    names = ("device", "device_name", "processor", "num_cores", "operating_system", "python_version", "code_sha256")
    found = [Comparison(name, str(getattr(then, name)), str(getattr(now, name))) for name in names]
    found += [
        Comparison(package, then.packages.get(package), now.packages.get(package))
        for package in sorted({*then.packages, *now.packages})
    ]
    return [comparison for comparison in found if not comparison.same]


def _computation(then: RunRecord, now: RunRecord) -> list[Comparison]:
    """What the same run may compute in another order: after it ran out of memory, or on another path."""
    found = []
    if then.budget is not None and now.budget is not None:
        sizes = then.budget.micro_batch_size, now.budget.micro_batch_size
        found.append(Comparison("micro-batch", *map(float, sizes)))
    if then.adapter is not None and now.adapter is not None:
        found.append(Comparison("execution path", then.adapter.execution_path, now.adapter.execution_path))
    return [comparison for comparison in found if not comparison.same]


def _changed_inputs(recorded: RunRecord, planned: dict[str, object]) -> str:
    then = recorded.spec.model_dump()
    changed = [key for key in then if then[key] != planned[key]]
    changed = [key for key in changed if f"{key}_revision" not in changed]  # names end in the revision's beginning
    if not changed:
        return "the record was written by a lorabench whose numbers mean something else (SCIENCE_VERSION)"
    parts = [f"{key.replace('_', ' ')} was {then[key]} and is now {planned[key]}" for key in changed]
    return f"what the run used has changed: {'; '.join(parts)}"


def _noise(store: RecordStore, record: RunRecord) -> float | None:
    """Standard error of bits per byte over documents (ratio estimator, linearised)."""
    documents = None if record.validation is None else store.documents(record, "validation", record.validation)
    if documents is None or len(documents.nll) < 2:
        return None
    num_bytes, nll = documents.num_bytes, documents.nll
    residuals = nll - nll.sum() / num_bytes.sum() * num_bytes
    spread = float(residuals.std(ddof=1)) * math.sqrt(len(nll))
    return spread / (math.log(2.0) * float(num_bytes.sum()))


def print_reproduction(result: Reproduction) -> None:
    """The comparison, for people."""
    for comparison in result.surroundings:
        print(f"differs: {comparison.name}: {comparison.recorded} then, {comparison.reproduced} now")
    for figure in result.figures:
        if figure.same:
            print(f"identical: {figure.name}")
        elif isinstance(figure.recorded, float) and isinstance(figure.reproduced, float):
            difference = figure.reproduced - figure.recorded
            noise = result.noise_bits_per_byte
            against = f", {abs(difference) / noise:.3g} of the noise over documents" if noise else ""
            values = f"{figure.recorded!r} then, {figure.reproduced!r} now"
            print(f"differs: {figure.name}: {values} ({difference:+.3g}{against})")
        else:
            print(f"differs: {figure.name}")
    print("The run came out identical." if result.identical else "The run did not come out identical.")
