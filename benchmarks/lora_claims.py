"""What the study of docs/studies/lora_claims.md measured: prints its tables as Markdown, from its two CSV files.

    python benchmarks/lora_claims.py                 # the tables
    python benchmarks/lora_claims.py --take FOLDER   # the CSV files anew, from where the experiments were run

All figures are validation bits per byte, mean over seeds. Every difference is paired by document and seed, and its 95 %
interval counts both, as in the report; where a table makes several comparisons they are corrected together (Holm), and
intervals are as much wider.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lorabench.analysis.comparisons import correct
from lorabench.analysis.statistics import Floats, Uncertain, compare_all, compare_pair
from lorabench.analysis.validation import DocumentReader, read_validation_runs
from lorabench.records.store import RecordStore, load_records

STUDY = Path(__file__).parents[1] / "docs" / "studies" / "lora_claims"
SETTINGS = ["method", "rank", "target_modules", "batch_size", "train_bytes", "learning_rate"]
SMALL_BATCH, LARGE_BATCH = 2, 8
LITTLE_TEXT_BYTES = 30_000
CAPACITY_RATE = 1e-3
LEVEL = 0.05


@dataclass(frozen=True)
class Cell:
    """One way of adapting, on one amount of text and size of batch: places in the panel by learning rate."""

    name: str
    places: Mapping[float, int]


@dataclass(frozen=True)
class Panel:
    """K configurations with S seeds on D documents. settings: a row for each; nll [K, S, D] nats; num_bytes [D]."""

    settings: pd.DataFrame
    nll: Floats
    num_bytes: Floats
    trained: Sequence[int]

    @cached_property
    def figures(self) -> Floats:
        """Bits per byte, mean over seeds, [K]."""
        means: Floats = self.nll.sum(axis=2).mean(axis=1) / (np.log(2.0) * self.num_bytes.sum())
        return means

    @cached_property
    def differences(self) -> Uncertain:
        """Of every pair; the spread over seeds is pooled over what was trained alike but for rank and targets."""
        alike = self.settings.groupby(["method", "batch_size", "train_bytes", "learning_rate"]).ngroup()
        return compare_all(self.nll, self.num_bytes, alike.to_list())

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """By name: method, rank, and what differs from the study's usual targets, batch and text."""
        places: dict[str, dict[float, int]] = {}
        for place, row in enumerate(self.settings.itertuples()):
            parts = [str(row.method), *([] if pd.isna(row.rank) else [f"r{row.rank:.0f}"])]
            parts += [] if row.target_modules == "all-linear" else [str(row.target_modules)]
            parts += [] if row.batch_size == SMALL_BATCH else [f"batch {row.batch_size}"]
            parts += [] if row.train_bytes < LITTLE_TEXT_BYTES else [f"{round(row.train_bytes / 1000)} kB"]
            places.setdefault(" ".join(parts), {})[float(row.learning_rate)] = place
        return {name: Cell(name, dict(sorted(found.items()))) for name, found in places.items()}

    def best_rate(self, cell: Cell) -> float:
        """Where it is lowest."""
        return min(cell.places, key=lambda rate: self.figures[cell.places[rate]])

    def best(self, cell: Cell) -> int:
        """Its place at its best rate."""
        return cell.places[self.best_rate(cell)]

    def may_be_best(self, cell: Cell) -> list[float]:
        """The rates that are not told from the cell's lowest, corrected for their number."""
        best = self.best_rate(cell)
        others = [rate for rate in cell.places if rate != best]
        found = correct([self.differences.take((cell.places[rate], cell.places[best])) for rate in others])
        tied = [rate for rate, verdict in zip(others, found, strict=True) if verdict and verdict.adjusted_p >= LEVEL]
        return sorted([best, *tied])


def read_panel() -> Panel:
    """From the study's CSV files. Raises OSError where they are not there."""
    runs, documents = pd.read_csv(STUDY / "runs.csv"), pd.read_csv(STUDY / "documents.csv")
    settings, rows, trained = [], [], []
    for values, members in runs.groupby(SETTINGS, dropna=False):
        settings.append(values)
        rows.append(np.stack([documents[run_id].to_numpy(float) for run_id in members.sort_values("seed")["run_id"]]))
        trained.append(int(members["trainable_parameters"].iloc[0]))
    frame = pd.DataFrame(settings, columns=SETTINGS)
    return Panel(frame, np.stack(rows), documents["bytes"].to_numpy(float), trained)


def take(folder: Path) -> None:
    """Write the CSV files from a folder of results: the table of runs, and each run's nats by document."""
    records = load_records(folder)
    runs = read_validation_runs(records, DocumentReader(RecordStore(folder)))
    found = {run.run_id: run.documents for run in runs if run.has_result and run.documents is not None}
    if not found:
        raise FileNotFoundError(f"{folder} holds no finished runs with their documents")
    table = pd.read_csv(folder / "results" / "benchmark_results.csv")
    table[table["run_id"].isin(found)].drop(columns="notes").to_csv(STUDY / "runs.csv", index=False)
    documents = {"bytes": next(iter(found.values())).num_bytes.astype(int)}
    pd.DataFrame(documents | {run_id: results.nll for run_id, results in sorted(found.items())}).to_csv(
        STUDY / "documents.csv", index=False, float_format="%.3f"
    )


def show(found: Uncertain, factor: float = 1.0) -> str:
    """`+0.0120 (+0.0040 to +0.0200)`."""
    estimate, half = float(found.estimate), float(found.half_width(factor))
    return f"{estimate:+.4f} ({estimate - half:+.4f} to {estimate + half:+.4f})"


def as_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def rates(panel: Panel, cells: Sequence[Cell]) -> str:
    """Every cell at every rate, its lowest, and the rates that may be best."""
    every = sorted({rate for cell in cells for rate in cell.places})
    rows = []
    for cell in cells:
        figures = [f"{panel.figures[cell.places[rate]]:.4f}" if rate in cell.places else "" for rate in every]
        tied = ", ".join(f"{rate:g}" for rate in panel.may_be_best(cell))
        rows.append([cell.name, *figures, f"{panel.best_rate(cell):g}", tied])
    return as_table(["", *(f"{rate:g}" for rate in every), "lowest at", "may be best"], rows)


def at_their_best(panel: Panel, cells: Sequence[Cell], against: Cell) -> str:
    """Each at its best rate against one of them at its own."""
    others = [cell for cell in cells if cell is not against]
    yardstick = panel.best(against)
    found = [panel.differences.take((panel.best(cell), yardstick)) for cell in others]
    rows = []
    for cell, value, verdict in zip(others, found, correct(found), strict=True):
        assert verdict is not None
        place, percent = panel.best(cell), 100 * float(value.estimate) / panel.figures[yardstick]
        told = "no detectable difference" if verdict.adjusted_p >= LEVEL else "lower" if percent < 0 else "higher"
        here = [cell.name, f"{panel.best_rate(cell):g}", f"{panel.trained[place]:,}", f"{panel.figures[place]:.4f}"]
        rows.append([*here, show(value, verdict.factor), f"{percent:+.1f} %", told])
    return as_table(["", "rate", "trained", "bits/byte", f"minus {against.name}", "", ""], rows)


def at_the_rate_of(panel: Panel, cells: Sequence[Cell], other: Cell) -> str:
    """What each loses at another one's best rate, next to its own best."""
    rate = panel.best_rate(other)
    rows = []
    for cell in cells:
        if cell is not other:
            is_same = panel.best_rate(cell) == rate
            lost = panel.differences.take((cell.places[rate], panel.best(cell)))
            rows.append([cell.name, f"{rate:g}", "nothing: it is its own" if is_same else show(lost)])
    return as_table(["", f"at the best rate of {other.name}", "loses"], rows)


def only_at(rate: float, cell: Cell) -> Cell:
    """As though it had been tried at one rate alone."""
    return Cell(cell.name, {rate: cell.places[rate]})


def difference_of_differences(panel: Panel, first: tuple[Cell, Cell], second: tuple[Cell, Cell]) -> Uncertain:
    """(A - B) - (C - D), each at its best rate, paired by document and seed."""
    (a, b), (c, d) = ((panel.nll[panel.best(one)], panel.nll[panel.best(two)]) for one, two in (first, second))
    return compare_pair(a + d, b + c, panel.num_bytes)


def print_tables(panel: Panel) -> None:
    """One part for each claim."""
    cells = panel.cells
    num_configurations, num_seeds, num_documents = panel.nll.shape
    print(f"{num_configurations} configurations × {num_seeds} seeds, {num_documents} documents")
    lora, low, full = cells["lora r32"], cells["lora r2"], cells["full"]

    print("\n## 1 and 2. Rates\n")
    print(rates(panel, [low, lora, full]))
    print(at_the_rate_of(panel, [low], lora))
    print(at_their_best(panel, [low, lora, full], lora))

    print("\n## 3. Targets\n")
    targets = [lora, cells["lora r85 attention"], cells["lora r51 mlp"]]
    print(rates(panel, targets))
    print(at_their_best(panel, targets, lora))

    print("\n## 4. Batches\n")
    lora_large, full_large = cells[f"lora r32 batch {LARGE_BATCH}"], cells[f"full batch {LARGE_BATCH}"]
    print(rates(panel, [lora, lora_large, full, full_large]))
    more = difference_of_differences(panel, (lora_large, lora), (full_large, full))
    print(f"What the large batch costs LoRA beyond what it costs full fine-tuning: {show(more)}\n")

    print("\n## 5. Capacity\n")
    low_more, lora_more = cells["lora r2 59 kB"], cells["lora r32 59 kB"]
    four = [only_at(CAPACITY_RATE, cell) for cell in (low, lora, low_more, lora_more)]
    print(rates(panel, four))
    print(at_their_best(panel, four[:2], four[1]))
    print(at_their_best(panel, four[2:], four[3]))
    more = difference_of_differences(panel, (four[2], four[3]), (four[0], four[1]))
    print(f"By how much more rank 2 is behind rank 32 with three times the text: {show(more)}\n")

    print("\n## 6. Methods\n")
    methods = [lora, *(cells[name] for name in ("dora r32", "pissa r32", "lora_plus r32", "full"))]
    print(rates(panel, methods))
    print(at_their_best(panel, methods, lora))


def main() -> int:
    """Exit code 0, or 2 where the files or the folder are not those of the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--take", type=Path, metavar="FOLDER", help="write the CSV files anew from these results")
    folder = parser.parse_args().take
    try:
        if folder is not None:
            take(folder)
        print_tables(read_panel())
    except OSError as error:
        print(f"lora_claims: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
