"""Before the runs of a command: its options, what it needs, the folders, and what was asked for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lorabench.core.errors import InputError
from lorabench.core.storage import disk_error
from lorabench.experiment.plan import Plan
from lorabench.models.quantized import require_quantization
from lorabench.records.asked import Asked, write_asked
from lorabench.records.provenance import now
from lorabench.records.store import RecordStore
from lorabench.runs.context import RunContext
from lorabench.runs.launching import check_devices
from lorabench.runs.place import worker_warnings
from lorabench.scoring.tasks import check_tasks
from lorabench.training.optimizers import require_optimizer


def asked_by(plan: Plan) -> Asked:
    """The plan's runs, for whoever reads the output folder while they are done."""
    search = plan.experiment.search
    return Asked(
        name=plan.experiment.name,
        started_at=now(),
        is_search=search is not None and search.leaves_runs_out,
        runs={run.run_id: run.spec.dataset for run in plan.runs},
        reference=plan.experiment.reference,
        num_steps={run.run_id: run.steps for run in plan.runs},
    )


def check_run_options(output_dir: Path | str, checkpoint_seconds: float) -> None:
    """Raise InputError for options that mean nothing."""
    if not isinstance(output_dir, str | os.PathLike) or "\0" in os.fspath(output_dir):
        raise InputError(f"output_dir: {str(output_dir)[:80]!r} is not accepted; a path is expected")
    if Path(output_dir).exists() and not Path(output_dir).is_dir():
        raise InputError(f"{output_dir}: it is not a folder; results need one of their own")
    if not isinstance(checkpoint_seconds, int | float) or not checkpoint_seconds >= 0:
        raise InputError(f"checkpoint_seconds: {checkpoint_seconds!r} is not accepted; a number from 0 is expected")


def begin(context: RunContext, plan: Plan, devices: str | None) -> None:
    """Say what is to be known before, and leave word of what is asked for."""
    for warning in (*plan.warnings, *worker_warnings(plan, devices)):
        context.view.message(warning)
    write_asked(context.store.output_dir, asked_by(plan))


def check_needs(plan: Plan, *, is_worker: bool) -> None:
    """Raise InputError where this machine or its packages cannot do what the plan's runs ask for."""
    check_devices(plan.device, plan.experiment.num_devices, is_worker=is_worker)
    for quantization in plan.experiment.quantizations:
        require_quantization(quantization)
    for optimizer in plan.experiment.optimizers:
        require_optimizer(optimizer, plan.device.type)
    if plan.experiment.evaluation.tasks:
        check_tasks(list(plan.runs[0].measures.tasks))


def make_folders(store: RecordStore) -> None:
    """Find out before anything is spent that the output cannot be written."""
    for folder in (store.runs_dir, store.results_dir, store.base_scores_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise disk_error(folder, error) from None
