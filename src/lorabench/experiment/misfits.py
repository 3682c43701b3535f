"""Runs that are not expected to fit into the memory of the device that they are planned for, and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorabench.experiment.layout import check_checkpointing, fits, is_enough
from lorabench.experiment.memory import estimate_memory
from lorabench.experiment.plan import Plan, PlannedRun
from lorabench.experiment.workload import PlannedShape, Workload
from lorabench.methods.registry import method_of

SHORTEST_CONTEXT = 64
"""Tokens; a shorter one is no remedy."""


@dataclass(frozen=True)
class Remedy:
    """Settings with which a run is expected to fit."""

    settings: dict[str, str | int | bool]
    """By dotted key."""
    memory_bytes: int

    def __str__(self) -> str:
        return " with ".join(f"{key}: {str(value).lower()}" for key, value in self.settings.items())


@dataclass(frozen=True)
class Misfit:
    """The runs of one model that are not expected to fit."""

    model: str
    run_ids: tuple[str, ...]
    memory_bytes: int
    """Expected of the largest."""
    remedies: tuple[Remedy, ...]
    """Of the largest: each alone is enough; or all at once, where none is alone. Empty where not even that helps."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        remedies = [{"settings": one.settings, "memory_bytes": one.memory_bytes} for one in self.remedies]
        return {
            "model": self.model,
            "runs": list(self.run_ids),
            "memory_bytes": self.memory_bytes,
            "remedies": remedies,
        }


def find_misfits(plan: Plan) -> list[Misfit]:
    """One for each model that has any, in the plan's order."""
    memory_bytes = plan.device.memory_bytes
    found: dict[str, list[tuple[PlannedShape, PlannedRun]]] = {}
    for group in plan.groups:
        for run in group.runs:
            if not is_enough(memory_bytes, run.estimated_memory_bytes):
                found.setdefault(group.model.name, []).append((group.model.shape, run))
    misfits = []
    for model, runs in found.items():
        shape, largest = max(runs, key=lambda pair: pair[1].estimated_memory_bytes)
        remedies = tuple(remedies_for(shape, largest, memory_bytes))
        ids = tuple(run.run_id for _, run in runs)
        misfits.append(Misfit(model, ids, largest.estimated_memory_bytes, remedies))
    return misfits


def remedies_for(shape: PlannedShape, run: PlannedRun, memory_bytes: int) -> list[Remedy]:
    """What makes a run fit into so much memory: each setting alone, or else as few of them together as are enough."""
    work = run.workload
    ways = [list(way) for way in (_fewer_rows(run), _checkpointed(run), _quantised(run), _shorter(work))]
    alone = [_first_fitting(shape, work, way, memory_bytes) for way in ways]
    if any(alone):
        return [remedy for remedy in alone if remedy is not None]
    so_far: dict[str, Any] = {}
    for way in ways:
        steps = [so_far | step for step in way]
        remedy = _first_fitting(shape, work, steps, memory_bytes)
        if remedy is not None:
            return [remedy]
        so_far = steps[-1] if steps else so_far
    return []


_KEYS = {
    "rows_at_once": "training.micro_batch_size",
    "checkpointing": "training.gradient_checkpointing",
    "quantization": "base.quantization",
    "context_length": "training.context_length",
}
"""Of what is changed in a workload: the key of an experiment."""


def _first_fitting(
    shape: PlannedShape, work: Workload, steps: Sequence[dict[str, Any]], memory_bytes: int
) -> Remedy | None:
    for step in steps:
        changed = replace(work, **step)
        if fits(shape, changed, memory_bytes):
            settings = {_KEYS[name]: value for name, value in step.items()}
            return Remedy(settings, estimate_memory(shape, changed))
    return None


def _fewer_rows(run: PlannedRun) -> Iterator[dict[str, Any]]:
    """Half as many each time; where none were asked for, one row was tried."""
    rows = run.workload.rows_at_once // 2
    while rows and run.spec.training.micro_batch_size is not None:
        yield {"rows_at_once": rows}
        rows //= 2


def _checkpointed(run: PlannedRun) -> Iterator[dict[str, Any]]:
    if not run.workload.checkpointing and check_checkpointing(run.spec, "auto") == "auto":
        yield {"checkpointing": True}


def _quantised(run: PlannedRun) -> Iterator[dict[str, Any]]:
    if run.spec.quantization == "none" and method_of(run.spec.adapter).takes_quantized:
        yield {"quantization": "nf4"}


def _shorter(work: Workload) -> Iterator[dict[str, Any]]:
    length = work.context_length // 2
    while length >= SHORTEST_CONTEXT:
        yield {"context_length": length}
        length //= 2
