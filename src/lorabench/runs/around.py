"""Before the runs of a command: its options, the folders, and what was asked for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lorabench.core.errors import InputError
from lorabench.core.storage import disk_error
from lorabench.experiment.plan import Plan
from lorabench.records.asked import Asked
from lorabench.records.provenance import now
from lorabench.records.store import RecordStore


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


def make_folders(store: RecordStore) -> None:
    """Find out before anything is spent that the output cannot be written."""
    for folder in (store.runs_dir, store.results_dir, store.base_scores_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise disk_error(folder, error) from None
