"""Packs the per-document results of an output folder into one file of numbers, for simulations from real results.

lorabench run benchmarks/population.yaml --tracker none --output-dir DIR
python benchmarks/record_population.py DIR tests/data/population.npz

Arrays, for each corpus: `<corpus>_nats` [configurations, seeds, documents], float32, and `<corpus>_bytes` [documents];
`rates` and `ranks` [configurations]. No text, no names of documents.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lorabench.analysis.validation import DocumentReader, read_validation_runs
from lorabench.records.store import RecordStore


def pack(output_dir: Path) -> dict[str, np.ndarray]:
    """The arrays of every corpus, configurations by rate and rank."""
    store = RecordStore(output_dir)
    runs = read_validation_runs(store.read_all()[0], DocumentReader(store))
    keys = sorted({(run.spec.training.learning_rate, run.spec.adapter.rank or 0) for run in runs})
    seeds = sorted({run.spec.seed for run in runs})
    arrays = {"rates": np.array([rate for rate, _ in keys]), "ranks": np.array([rank for _, rank in keys])}
    for corpus in sorted({run.spec.dataset for run in runs}):
        found = {
            (run.spec.training.learning_rate, run.spec.adapter.rank or 0, run.spec.seed): run.documents
            for run in runs
            if run.spec.dataset == corpus and run.documents is not None
        }
        nats = [[found[*key, seed].nll for seed in seeds] for key in keys]
        arrays[f"{corpus}_nats"] = np.array(nats, dtype=np.float32)
        arrays[f"{corpus}_bytes"] = found[*keys[0], seeds[0]].num_bytes.astype(np.int32)
    return arrays


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("file", type=Path)
    chosen = parser.parse_args()
    np.savez_compressed(chosen.file, **pack(chosen.output_dir))


if __name__ == "__main__":
    main()
