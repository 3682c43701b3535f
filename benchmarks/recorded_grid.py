"""What `record_grid.py` wrote, read back, and made into searches that might have been."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

from lorabench.analysis.statistics import Floats, Uncertain, compare_all
from lorabench.experiment.schema import RunSpec
from lorabench.records.documents import DocumentResults
from lorabench.runs.searching import Entrant
from lorabench.runs.strategies.racing import spreads_like

END = -1
"""The stage after the last rung."""


@dataclass(frozen=True)
class Grid:
    """What K configurations with S seeds scored on D documents at every rung and at their end, R stages in all."""

    name: str
    specs: tuple[RunSpec, ...]
    shares: tuple[float, ...]
    """Of the rungs, rising; without the end."""
    nll: Floats
    """[R, K, S, D] in nats."""
    num_bytes: Floats
    """[D]."""

    @property
    def num_seeds(self) -> int:
        """With which each configuration was trained."""
        return self.nll.shape[2]

    @cached_property
    def alike(self) -> list[int]:
        """[K]: numbers of the groups within which configurations spread alike over seeds, as racing says."""
        kinds = [spreads_like(spec) for spec in self.specs]
        return [kinds.index(kind) for kind in kinds]

    @cached_property
    def figures(self) -> Floats:
        """[R, K]: bits per byte, mean over seeds."""
        return np.asarray(self.nll.sum(axis=3).mean(axis=2) / (math.log(2.0) * self.num_bytes.sum()))

    @cached_property
    def agreement(self) -> list[float]:
        """[R - 1]: Spearman's correlation of the figures at each rung with those at the end."""
        return [float(spearmanr(figures, self.figures[END]).statistic) for figures in self.figures[:END]]

    def with_first_seeds(self, count: int) -> Grid:
        """The grid with so many of its seeds, or all where it has fewer."""
        return replace(self, nll=self.nll[:, :, :count])

    @cached_property
    def differences(self) -> Uncertain:
        """[K, K]: of all configurations at their end, over documents and seeds."""
        return compare_all(self.nll[END], self.num_bytes, self.alike)

    def entrants(self, places: Sequence[int], stage: int, num_seeds: int) -> tuple[Entrant, ...]:
        """Some of the configurations at a stage, as a search with so many seeds sees them."""
        nll, seeds = self.nll[stage], range(num_seeds)
        figures = nll.sum(axis=2)[:, :num_seeds].mean(axis=1) / (math.log(2.0) * self.num_bytes.sum())
        return tuple(
            Entrant(
                self.specs[place],
                tuple(f"{place}-s{seed}" for seed in seeds),
                float(figures[place]),
                tuple(self._documents(nll[place, seed]) for seed in seeds),
            )
            for place in places
        )

    def _documents(self, nll: Floats) -> DocumentResults:
        return DocumentResults("the same", self.num_bytes, self.num_bytes, self.num_bytes, nll, None)


def read_grids(path: Path) -> list[Grid]:
    """One for each corpus in the file. Raises OSError, or ValueError where it is no such file."""
    table = pd.read_parquet(path)
    missing = {"corpus", "spec", "seed", "share", "nll", "num_bytes"} - set(table.columns)
    if missing:
        raise ValueError(f"the column {min(missing)} is missing; benchmarks/record_grid.py writes such files")
    return [_read(f"{path.stem}: {corpus}", rows) for corpus, rows in table.groupby("corpus")]


def _read(name: str, rows: pd.DataFrame) -> Grid:
    specs, seeds, shares = (list(dict.fromkeys(rows[column])) for column in ("spec", "seed", "share"))
    shares.sort()
    by_place = rows.set_index(["share", "spec", "seed"])["nll"]
    if not by_place.index.is_unique or len(by_place) != len(specs) * len(seeds) * len(shares) or shares[END] != 1.0:
        raise ValueError(f"{name}: each configuration is to be there once with each seed at each rung and its end")
    if len(seeds) < 2:
        raise ValueError(f"{name}: it has one seed; racing needs at least two, and so do replays")
    nll = [[[by_place[share, spec, seed] for seed in seeds] for spec in specs] for share in shares]
    return Grid(
        name,
        tuple(RunSpec.model_validate_json(spec) for spec in specs),
        tuple(shares[:END]),
        np.array(nll, dtype=np.float64),
        np.asarray(rows["num_bytes"].iloc[0], dtype=np.float64),
    )


def redraw(
    grid: Grid, random: np.random.Generator, *, has_new_seeds: bool = False
) -> tuple[Grid, npt.NDArray[np.intp]]:
    """The grid in another order of its configurations, on documents drawn with replacement, and with other seeds; and
    which configuration came to each place.

    The seeds are the recorded ones in another order, the same for all configurations. New ones are drawn, as many as
    there are, around each configuration's mean, normal, with the covariance that the recorded seeds have over rungs
    and documents: what a seed does to all configurations that spread alike is one draw for all, what it does to one
    beyond that a draw of its own. So the mean over seeds stays what it is.
    """
    order = random.permutation(len(grid.specs))
    documents = random.integers(len(grid.num_bytes), size=len(grid.num_bytes))
    nll = _with_new_seeds(grid, random) if has_new_seeds else grid.nll[:, :, random.permutation(grid.num_seeds)]
    specs = tuple(grid.specs[place] for place in order)
    return replace(grid, specs=specs, nll=nll[:, order][..., documents], num_bytes=grid.num_bytes[documents]), order


def _with_new_seeds(grid: Grid, random: np.random.Generator) -> Floats:
    num_seeds = grid.num_seeds
    mean = grid.nll.mean(axis=2, keepdims=True)
    deviations = (grid.nll - mean) / math.sqrt(num_seeds - 1)
    of_all = random.standard_normal((num_seeds, num_seeds))
    drawn = np.empty_like(grid.nll)
    for group in set(grid.alike):
        members = np.flatnonzero(np.array(grid.alike) == group)
        shared = deviations[:, members].mean(axis=1)
        own = deviations[:, members] - shared[:, None]
        own *= math.sqrt(len(members) / max(1, len(members) - 1))
        of_each = random.standard_normal((len(members), num_seeds, num_seeds))
        drawn[:, members] = np.einsum("ts,rsd->rtd", of_all, shared)[:, None]
        drawn[:, members] += np.einsum("kts,rksd->rktd", of_each, own)
    return mean + drawn
