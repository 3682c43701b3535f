"""Reading records, writing the table and building the report take time in proportion to the number of runs."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path

import pytest

from lorabench.experiment.identity import run_id
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report, rebuild_table
from tests.report.synthetic import SyntheticResults

FEW, MANY = 10, 40
"""Seeds of each of twenty configurations."""


def write_seeds(folder: Path, num_seeds: int) -> Path:
    """Further seeds repeat the files of the first."""
    results = SyntheticResults(folder, num_documents=20, steps=10)
    records = results.grid(ranks=(8, 16, 32, 64, 128), learning_rates=(1e-4, 3e-4, 1e-3, 3e-3))
    for record, seed in itertools.product(records, range(1, num_seeds)):
        spec = record.spec.model_copy(update={"seed": seed})
        copy = record.model_copy(update={"spec": spec, "run_id": run_id(spec)})
        target = results.store.run_dir(copy.run_id)
        shutil.copytree(results.store.run_dir(record.run_id), target, copy_function=os.link)
        (target / "record.json").unlink()
        results.store.write(copy)
    return folder


def processor_seconds(folder: Path) -> float:
    store = RecordStore(folder)
    started = time.process_time()
    rebuild_table(store)
    build_report(store, figures=False)
    return time.process_time() - started


@pytest.mark.slow
def test_four_times_the_runs_take_about_four_times_as_long(tmp_path: Path) -> None:
    few, many = (write_seeds(tmp_path / str(count), count) for count in (FEW, MANY))
    processor_seconds(few)  # what is imported and compiled once
    assert processor_seconds(many) <= 1.4 * MANY / FEW * processor_seconds(few)
    assert len(RecordStore(many).run_ids()) == 20 * MANY
