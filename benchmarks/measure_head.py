"""How what reads an output folder grows with the number of its runs: processor seconds and peak memory.

PYTHONPATH=. python benchmarks/measure_head.py [--runs 2500 5000 10000] [--documents 100] [--folder FOLDER]

Runs that never happened are written to FOLDER/<number>, each with per-document results and a curve; then a process of
its own for each folder reads the records, writes the table, and builds the whole report.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lorabench.experiment.identity import run_id
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report, rebuild_table
from tests.report.synthetic import SyntheticResults, Truth

MODELS, CORPORA = [f"model-{place}" for place in range(5)], [f"corpus-{place}" for place in range(10)]
RATES, RANKS = (1e-4, 3e-4, 1e-3, 3e-3), (8, 16, 32, 64, 128)
PER_SEED = len(MODELS) * len(CORPORA) * len(RATES) * len(RANKS)
PARTS = ("records", "table", "report")


def write_runs(folder: Path, num_seeds: int, num_documents: int) -> None:
    """Five models on ten corpora, 20 configurations, each with so many seeds, which repeat the figures of the first."""
    truth = Truth(by_rank={8: 0.004, 16: 0.002}, by_learning_rate={1e-4: 0.04, 3e-3: 0.02})
    results = SyntheticResults(folder, truth, num_documents=num_documents, steps=20)
    sync, os.fsync = os.fsync, lambda _: None  # these may be lost
    records = results.grid(MODELS, CORPORA, RANKS, RATES)
    for record, seed in itertools.product(records, range(1, num_seeds)):
        spec = record.spec.model_copy(update={"seed": seed})
        copy = record.model_copy(update={"spec": spec, "run_id": run_id(spec)})
        link_run(results.store.run_dir(record.run_id), results.store.run_dir(copy.run_id))
        (results.store.run_dir(copy.run_id) / "record.json").unlink()
        results.store.write(copy)
    os.fsync = sync


def link_run(source: Path, target: Path) -> None:
    """The same files at another place, without copying them."""
    shutil.copytree(source, target, copy_function=os.link)


def link_runs(source: Path, folder: Path, num_seeds: int) -> None:
    """The runs of the first seeds again."""
    for record in RecordStore(source).read_all()[0]:
        if record.spec.seed < num_seeds:
            link_run(source / "runs" / record.run_id, folder / "runs" / record.run_id)


def measure(folder: Path) -> dict[str, float]:
    """Processor seconds by part, and `peak_gb`, of this process."""
    store, seconds = RecordStore(folder), {}
    steps = (store.read_all, lambda: rebuild_table(store), lambda: build_report(store))
    for part, step in zip(PARTS, steps, strict=True):
        started = time.process_time()
        step()
        seconds[part] = time.process_time() - started
    return seconds | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def main() -> None:
    """Print a table, and the growth of each part from each size to the next."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[2500, 5000, 10_000])
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure is not None:
        print(json.dumps(measure(chosen.measure)))
        return
    print("| runs | records | table | report | peak |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        found, whole = {}, (chosen.folder or Path(temporary)) / "whole"
        seeds = [-(-num_runs // PER_SEED) for num_runs in sorted(chosen.runs)]
        if not whole.exists():
            write_runs(whole, seeds[-1], chosen.documents)
        for num_seeds in seeds:
            folder = whole.with_name(str(num_seeds * PER_SEED))
            if not folder.exists():
                link_runs(whole, folder, num_seeds)
            command = [sys.executable, __file__, "--measure", str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found[num_seeds * PER_SEED] = values = json.loads(done.stdout)
            seconds = " | ".join(f"{values[part]:.1f} s" for part in PARTS)
            print(f"| {num_seeds * PER_SEED:,} | {seconds} | {values['peak_gb']:.2f} GB |", flush=True)
    for (smaller, before), (larger, after) in itertools.pairwise(found.items()):
        growth = ", ".join(f"{part} × {after[part] / before[part]:.2f}" for part in PARTS)
        print(f"{larger / smaller:.2f} times the runs: {growth}")


if __name__ == "__main__":
    main()
