"""Packs a search that trained every configuration to its end into one file of numbers, for replays of searches.

lorabench run FILE --output-dir DIR      # search: {strategy: halving, keep: as many as there are}; three seeds
python benchmarks/record_grid.py DIR --to grid.parquet

A row is a configuration with one seed at one rung, or at its end (share 1):

corpus, and the settings that vary    under the names that they have in an experiment file
seed, share, step, own_steps          own_steps are those of the rung's cool-down, from which the run does not go on
bits_per_byte                         of all documents, as recorded
nll                                   nats of each document, float32; the same documents in the same order in every row
num_bytes                             of each document
spec                                  the whole configuration as JSON, whose seed and scoring mean nothing

No text, and no names of documents. The folder must be whole: every run of its last experiments completed, every
configuration with every seed, all rungs of each, every per-document file as its record has it, the same documents
everywhere. What is not is said in one sentence, and nothing is written.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lorabench.analysis.candidates import settings_of, varied_axes
from lorabench.core.errors import DataError, LorabenchError
from lorabench.core.storage import write_atomically
from lorabench.experiment.identity import configuration_of
from lorabench.records.asked import read_asked
from lorabench.records.documents import DocumentResults
from lorabench.records.schema import RunRecord, Scores, Status
from lorabench.records.store import RecordStore
from lorabench.runs.searching import read_rung_documents


@dataclass(frozen=True)
class Stage:
    """A run at a rung or at its end."""

    share: float
    step: int
    own_steps: int
    scores: Scores
    documents: DocumentResults


def read_records(store: RecordStore) -> list[RunRecord]:
    """All runs that the folder's experiments asked for. Raises DataError unless each is there and completed."""
    records, problems = store.read_all()
    asked, sentences = read_asked(store.output_dir)
    for sentence in [*map(str, problems), *sentences]:
        raise DataError(sentence)
    wanted = {run_id for experiment in asked for run_id in experiment.runs}
    found = {record.run_id: record for record in records if record.run_id in wanted or not wanted}
    if not found:
        raise DataError(f"{store.output_dir}: no run has a record yet; lorabench run --output-dir makes them")
    for missing in sorted(wanted - found.keys()):
        raise DataError(f"{missing}: it was asked for and has no record; the same lorabench run does it")
    for record in found.values():
        if record.status is not Status.COMPLETED:
            raise DataError(f"{record.run_id}: {record.status.value}; a grid is of runs that were trained to their end")
    return list(found.values())


def read_stages(store: RecordStore, record: RunRecord) -> list[Stage]:
    """Every rung of a completed run, and its end. Raises DataError where a file is missing or is not what it wrote."""
    stages = []
    for rung in record.rungs:
        try:
            documents = read_rung_documents(store, record.run_id, rung)
        except (OSError, ValueError) as error:
            raise DataError(f"{record.run_id}: {rung.documents} cannot be used: {error}") from None
        stages.append(Stage(rung.share, rung.step, rung.own_steps, rung.validation, documents))
    assert record.budget is not None, "of a completed run"
    assert record.validation is not None
    at_end = store.documents(record, "validation", record.validation)
    if at_end is None:
        raise DataError(f"{record.run_id}: its per-document results are missing")
    if not stages:
        raise DataError(
            f"{record.run_id}: it has no rungs; in a grid every seed has them, so seeds_at_the_end is to be at most as "
            "many as there are seeds"
        )
    return [*stages, Stage(1.0, record.budget.steps, 0, record.validation, at_end)]


def pack_corpus(corpus: str, records: Sequence[RunRecord], stages: Mapping[str, list[Stage]]) -> pd.DataFrame:
    """The rows of one corpus. Raises DataError where a seed or a rung is missing, or documents differ."""
    seeds = {record.spec.seed for record in records}
    by_configuration: dict[str, dict[int, RunRecord]] = {}
    for record in records:
        other = by_configuration.setdefault(configuration_of(record.spec), {}).setdefault(record.spec.seed, record)
        if other is not record:
            raise DataError(f"{record.run_id}: it is {other.run_id} with other scoring; a grid is of one experiment")
    settings = [settings_of(record.spec, record.spec.model) for record in records]
    varied = varied_axes(settings)
    first = stages[records[0].run_id]
    rows = []
    for runs in by_configuration.values():
        for seed in sorted(seeds - runs.keys()):
            raise DataError(f"{next(iter(runs.values())).run_id}: no such run has seed {seed}, which others have")
        for seed, record in sorted(runs.items()):
            values = {axis: settings_of(record.spec, record.spec.model)[axis] for axis in varied}
            spec = record.spec.model_copy(update={"seed": 0}).model_dump_json()
            found = stages[record.run_id]
            if [stage.share for stage in found] != [stage.share for stage in first]:
                raise DataError(f"{record.run_id}: its rungs are not those of {records[0].run_id}")
            for stage in found:
                if stage.documents.fingerprint != first[0].documents.fingerprint:
                    raise DataError(f"{record.run_id}: other documents were scored than those of {records[0].run_id}")
                where = {"seed": seed, "share": stage.share, "step": stage.step, "own_steps": stage.own_steps}
                scored = {
                    "bits_per_byte": stage.scores.bits_per_byte,
                    "nll": stage.documents.nll.astype(np.float32),
                    "num_bytes": stage.documents.num_bytes.astype(np.int32),
                }
                rows.append({"corpus": corpus, **values, **where, **scored, "spec": spec})
    return pd.DataFrame(rows)


def pack(output_dir: Path) -> pd.DataFrame:
    """The rows of every corpus. Raises DataError where the folder is not whole."""
    store = RecordStore(output_dir)
    records = read_records(store)
    stages = {record.run_id: read_stages(store, record) for record in records}
    tables = []
    for corpus in sorted({record.spec.dataset for record in records}):
        members = [record for record in records if record.spec.dataset == corpus]
        tables.append(pack_corpus(corpus, members, stages))
    table = pd.concat(tables, ignore_index=True)
    for column in table.columns:
        if table[column].map(lambda value: isinstance(value, str)).nunique() > 1:
            table[column] = table[column].map(str)  # a number here and a word there, such as alpha
    return table


def rounding(table: pd.DataFrame) -> float:
    """By how many bits per byte float32 moves a figure at most."""
    pairs = zip(table["nll"], table["num_bytes"], strict=True)
    figures = [nll.sum(dtype=np.float64) / (math.log(2.0) * sizes.sum()) for nll, sizes in pairs]
    return float((table["bits_per_byte"] - figures).abs().max())


def main() -> None:
    """Write the file and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="of lorabench run")
    parser.add_argument("--to", type=Path, required=True, help="the file to write")
    chosen = parser.parse_args()
    try:
        table = pack(chosen.output_dir)
        write_atomically(chosen.to, table.to_parquet(index=False, compression="zstd"))
    except LorabenchError as error:
        print(f"record_grid: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    for corpus, rows in table.groupby("corpus"):
        counts = {"configurations": rows["spec"].nunique(), "seeds": rows["seed"].nunique()}
        counts |= {"stages (rungs and the end)": rows["share"].nunique(), "documents": len(rows["nll"].iloc[0])}
        print(f"{corpus}: {' × '.join(f'{count} {name}' for name, count in counts.items())}")
    size = chosen.to.stat().st_size / 1000
    print(f"{chosen.to}: {size:.0f} kB; float32 moves no figure by more than {rounding(table):.1g} bits per byte")


if __name__ == "__main__":
    main()
