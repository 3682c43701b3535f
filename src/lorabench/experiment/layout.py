"""How a step is laid out in a device's memory: rows computed at once, and gradient checkpointing.

Neither changes what is trained: losses differ by rounding with the rows, and not at all with checkpointing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lorabench.core.canonical import fingerprint
from lorabench.core.device import Device
from lorabench.core.errors import ConfigError
from lorabench.experiment.calibration import keep, read_calibration
from lorabench.experiment.memory import estimate_memory
from lorabench.experiment.schema import Checkpointing, RunSpec
from lorabench.experiment.steps import micro_batch_size
from lorabench.experiment.workload import PlannedShape, Workload
from lorabench.methods.registry import method_of

SHARE = 0.9
"""Of a device's memory that an estimate may fill."""
MORE_MEMORY = 1.25
"""Where a device has so many times what it had, what did not fit before is tried again."""
_KEY = "micro_batches"


@dataclass(frozen=True)
class Layout:
    """Rows computed at once, and whether layers are computed once more in the backward pass."""

    rows: int
    checkpointing: bool = False

    def __str__(self) -> str:
        return f"{self.rows}" + (" with gradient checkpointing" if self.checkpointing else "")

    def smaller(self, checkpointing: Checkpointing) -> Layout | None:
        """With half the rows; of one row with checkpointing, where that is `auto`. None: there is nothing smaller."""
        if self.rows > 1:
            return Layout(self.rows // 2, self.checkpointing)
        return Layout(1, True) if checkpointing == "auto" and not self.checkpointing else None


def check_checkpointing(spec: RunSpec, asked: Checkpointing) -> Checkpointing:
    """What can be done of what is asked for. Raises ConfigError where that is nothing."""
    if not method_of(spec.adapter).num_virtual_tokens(spec.adapter):
        return asked
    if asked is True:
        raise ConfigError(
            f"training.gradient_checkpointing: true is not accepted with adapter.method {spec.adapter.method}, whose "
            "virtual tokens would be put before the text twice; give auto or false"
        )
    return False


def rows_at_most(spec: RunSpec, device: Device, memory_bytes: int, num_devices: int) -> int:
    """Rows at once that are tried first: what is asked for, else what suits the device or is known to fit into it."""
    rows = min(micro_batch_size(spec.training, device), -(-spec.training.batch_size // num_devices))
    if spec.training.micro_batch_size is not None:
        return rows
    known = read_calibration(device).get(_KEY)
    known = known.get(_key(spec)) if known else None
    return min(rows, known["rows"]) if known and memory_bytes < MORE_MEMORY * known["memory_bytes"] else rows


def remember_rows(spec: RunSpec, device: Device, memory_bytes: int, rows: int) -> None:
    """Keep how many rows fitted after memory had run out, for later runs of the model, context and method here."""
    known = read_calibration(device).get(_KEY, {})
    keep(device, _KEY, {**known, _key(spec): {"rows": rows, "memory_bytes": memory_bytes}})


def _key(spec: RunSpec) -> str:
    return fingerprint(
        {
            "model": [spec.model, spec.model_revision, spec.quantization],
            "adapter": spec.adapter.model_dump(mode="json"),
            "training": [spec.training.precision, spec.training.context_length, spec.training.optimizer],
        }
    )[:16]


def workload_of(spec: RunSpec, target_modules: tuple[str, ...], layout: Layout) -> Workload:
    """What of a run its memory depends on."""
    return Workload(
        context_length=spec.training.context_length,
        precision=spec.training.precision,
        evaluation_tokens=0,
        adapter=spec.adapter,
        target_modules=target_modules,
        rows_at_once=layout.rows,
        checkpointing=layout.checkpointing,
        optimizer=spec.training.optimizer,
        quantization=spec.quantization,
    )


def is_enough(memory_bytes: int, estimated_bytes: int) -> bool:
    """Whether what is expected to take so much fits into so much memory."""
    return estimated_bytes <= SHARE * memory_bytes


def fits(shape: PlannedShape, workload: Workload, memory_bytes: int) -> bool:
    """Whether a run is expected to fit into so much memory."""
    return is_enough(memory_bytes, estimate_memory(shape, workload))


def fitting(
    shape: PlannedShape, workload: Workload, memory_bytes: int, checkpointing: Checkpointing, *, fewer_rows: bool
) -> Workload:
    """The workload with the most rows at once that are expected to fit, and checkpointed where none fits otherwise.

    Where nothing is expected to fit, as small as it can be: estimates may be too high.
    """
    workload = replace(workload, checkpointing=checkpointing is True)
    candidates = list(_candidates(workload, checkpointing, fewer_rows))
    return next((one for one in candidates if fits(shape, one, memory_bytes)), candidates[-1])


def _candidates(workload: Workload, checkpointing: Checkpointing, fewer_rows: bool) -> Iterator[Workload]:
    for on in (False, True) if checkpointing == "auto" else (checkpointing,):
        rows = workload.rows_at_once
        while rows:
            yield replace(workload, rows_at_once=rows, checkpointing=bool(on))
            rows = rows // 2 if fewer_rows else 0
