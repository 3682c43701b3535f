"""Replays searches on recorded grids: what each costs, and how good what it chooses is.

python benchmarks/record_grid.py DIR --to grid.parquet
python benchmarks/replay_search.py grid.parquet [more.parquet] [--replays 200] [--seed 0] [--new-seeds]

The truth is the grid's own: each configuration's bits per byte at its end, mean over all seeds, on all documents. The
best is the lowest; the set that may hold the best is `find_best` of the whole grid. A replay then sees other results:

- the configurations in another order (it decides between equals, and all that Optuna's pruners do);
- as many documents, drawn with replacement, the same for every configuration, seed and rung;
- the recorded seeds in another order, one for all configurations: which is the first, and which are the first two. A
  search with all of them has the truth's own seeds, and is shown as better than it is with others;
- with `--new-seeds` as many seeds that nobody trained with, drawn around each configuration's mean
  (`recorded_grid.redraw`): normal, with the covariance over rungs and documents that the recorded seeds have. That
  goes beyond the recorded seeds, and is wrong where seeds spread unevenly: beside one that went astray it draws others
  that are as much better as no training would be.

Not drawn anew: the configurations, the training text, and each configuration's mean over seeds at every rung. That
three seeds say little about a mean is not in the table.

Who leaves a rung is decided by the rules that `lorabench run` uses (`leave_by_rank`, `leave_when_beaten`), and costs
are those of `lorabench plan` (`experiment.ladder`), further seeds of what is trained to the end included. What is
chosen is the lowest at its end, over the seeds that a search has of it there. With a fresh schedule for each rung the
decisions are taken to be the same, and the cost is another. ASHA and Hyperband are Optuna's pruners, asked after each
rung of one configuration after another with one seed; their rungs cost what ours do. Random search trains as many
configurations to their end as the cost pays for, drawn without replacement.

In the table, cost is in % of the grid with all its seeds; `in the set`, `best kept` and `best chosen` are % of replays
in which the choice is in the set that may hold the best, the best was trained to its end, and is what was chosen;
regret is the choice's true figure minus the lowest, in 0.001 bits per byte: its mean and the 95th of 100.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from recorded_grid import END, Grid, read_grids, redraw

from lorabench.analysis.best import find_best
from lorabench.experiment.ladder import num_kept, plan_rungs
from lorabench.experiment.schema import TrainingSettings
from lorabench.experiment.search import SearchSettings
from lorabench.runs.searching import AtRung, SearchKind
from lorabench.runs.strategy import STRATEGIES


@dataclass(frozen=True)
class Outcome:
    """Of one search. Places are those in the grid that it was given."""

    runs: float
    """Its cost in whole runs."""
    kept: Sequence[int]
    """Trained to the end."""
    choice: int


def cost_of(
    grid: Grid, search: SearchSettings, reached: Sequence[int], num_seeds: int, training: TrainingSettings | None = None
) -> float:
    """In whole runs, where so many configurations reached each rung and the end, with so many seeds; without more."""
    plan = plan_rungs(search, len(grid.specs), training or grid.specs[0].training)
    return num_seeds * sum(count * rung.cost for count, rung in zip(reached, plan, strict=True))


def by_figure(grid: Grid, places: Sequence[int], num_seeds: int) -> list[int]:
    """Some configurations, the lowest at its end first, by the mean over the first seeds."""
    return sorted(places, key=lambda place: float(grid.nll[END, place, :num_seeds].sum()))


def search_rungs(
    grid: Grid, search: SearchSettings, num_seeds: int, training: TrainingSettings | None = None
) -> Outcome:
    """As `lorabench run` searches: the strategy's own rule decides at each rung."""
    kind = STRATEGIES.get(search.strategy)
    assert isinstance(kind, SearchKind)
    members, reached = list(range(len(grid.specs))), []
    for number, share in enumerate(search.shares):
        reached.append(len(members))
        entrants = grid.entrants(members, grid.shares.index(share), num_seeds)
        leaving = kind.rule(AtRung(search, number, entrants))
        members = [member for place, member in enumerate(members) if place not in leaving]
    seeds_at_the_end = max(num_seeds, search.seeds_at_the_end)
    with_more_seeds = by_figure(grid, members, num_seeds)[: num_kept(search, len(members))]
    more = (seeds_at_the_end - num_seeds) * len(with_more_seeds)
    runs = cost_of(grid, search, [*reached, len(members)], num_seeds, training) + more
    return Outcome(runs, members, by_figure(grid, with_more_seeds, seeds_at_the_end)[0])


def train_whole(grid: Grid, count: int, num_seeds: int) -> Outcome:
    """The first configurations to their end. Of a grid that was redrawn they are random ones."""
    places = range(max(1, min(len(grid.specs), count)))
    return Outcome(len(places) * num_seeds, places, by_figure(grid, places, num_seeds)[0])


def prune(grid: Grid, first: int, kind: str, random: np.random.Generator) -> Outcome:
    """One configuration after another with one seed; Optuna's pruner is asked at each rung from `first` on.

    Rungs and the end count as 1, eta, eta², … for it.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    eta = eta_of(grid)
    search = SearchSettings(strategy="halving", rungs=grid.shares[first:], eta=eta)
    resources = [eta**number for number in range(len(search.shares) + 1)]
    pruner: Any = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=eta)
    if kind == "hyperband":
        pruner = optuna.pruners.HyperbandPruner(1, resources[-1], eta)
    sampler = optuna.samplers.RandomSampler(seed=0)  # asked for nothing: what is tried is enqueued
    study = optuna.create_study(study_name=str(random.integers(2**63)), sampler=sampler, pruner=pruner)
    figures = grid.nll[first:, :, 0].sum(axis=2)
    reached, kept = [0] * len(resources), []
    for place in range(len(grid.specs)):
        study.enqueue_trial({"configuration": place})
        trial = study.ask({"configuration": optuna.distributions.IntDistribution(0, len(grid.specs) - 1)})
        for number, resource in enumerate(resources[:-1]):
            reached[number] += 1
            trial.report(float(figures[number, place]), resource)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            reached[END] += 1
            kept.append(place)
            study.tell(trial, float(figures[END, place]))
    return Outcome(cost_of(grid, search, reached, 1), kept, study.best_trial.params["configuration"])


def counted(num_seeds: int) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{num_seeds} seed{'s' * (num_seeds > 1)}"


def eta_of(grid: Grid) -> int:
    """How far apart the rungs are."""
    return round(1.0 / grid.shares[-1])


def replay(grid: Grid, random: np.random.Generator) -> dict[str, Outcome]:
    """Every search once, by what the table calls it."""
    every, eta = grid.num_seeds, eta_of(grid)
    found = {f"full grid, {counted(num)}": train_whole(grid, len(grid.specs), num) for num in (every, 1)}
    fresh = grid.specs[0].training.model_copy(update={"schedule": "cosine"})
    starts = [f"from 1/{1.0 / share:.3g}" for share in grid.shares[:2]]
    for first, start in enumerate(starts):
        halving = SearchSettings(rungs=grid.shares[first:], seeds_at_the_end=every)
        classic = halving.model_copy(update={"eta": eta, "keep": 1})
        racing = SearchSettings(strategy="racing", rungs=grid.shares[first:], seeds_at_the_end=every)
        found[f"halving {start}, 1 seed"] = search_rungs(grid, halving, 1)
        found[f"the same, a fresh schedule for each rung {start}"] = search_rungs(grid, halving, 1, fresh)
        found[f"halving {start}, 1 seed, eta {eta}, keep 1"] = search_rungs(grid, classic, 1)
        found[f"halving {start}, {every} seeds, eta {eta}, keep 1"] = search_rungs(grid, classic, every)
        for num_seeds in dict.fromkeys((2, every)):
            found[f"racing {start}, {num_seeds} seeds"] = search_rungs(grid, racing, num_seeds)
        if find_spec("optuna") is not None:
            found[f"ASHA (Optuna) {start}, 1 seed"] = prune(grid, first, "asha", random)
            found[f"Hyperband (Optuna) {start}, 1 seed"] = prune(grid, first, "hyperband", random)
    for name, num_seeds in ((f"halving {starts[0]}, 1 seed", 1), (f"racing {starts[-1]}, {counted(every)}", every)):
        random_search = train_whole(grid, int(found[name].runs / num_seeds), num_seeds)
        found[f"random search at the cost of {name}"] = random_search
    return found


@dataclass(frozen=True)
class Row:
    """A line of the table; shares and cost from 0 to 1, regrets in bits per byte."""

    cost: float
    in_the_set: float
    best_kept: float
    best_chosen: float
    mean_regret: float
    high_regret: float


def judge(grid: Grid, outcomes: Sequence[Outcome]) -> Row:
    """Searches against the truth; their places are those in the grid."""
    truth, may_be_best = grid.figures[END], find_best(grid.differences).members
    best = int(truth.argmin())
    regrets = np.array([truth[outcome.choice] - truth[best] for outcome in outcomes])
    return Row(
        float(np.mean([outcome.runs for outcome in outcomes])) / (len(truth) * grid.num_seeds),
        float(np.mean([outcome.choice in may_be_best for outcome in outcomes])),
        float(np.mean([best in outcome.kept for outcome in outcomes])),
        float(np.mean([outcome.choice == best for outcome in outcomes])),
        float(regrets.mean()),
        float(np.quantile(regrets, 0.95)),
    )


def replay_often(grid: Grid, replays: int, seed: int, *, has_new_seeds: bool) -> dict[str, Row]:
    """Every search so many times, by its name."""
    random = np.random.default_rng(seed)
    outcomes: dict[str, list[Outcome]] = {}
    for _ in range(replays):
        redrawn, order = redraw(grid, random, has_new_seeds=has_new_seeds)
        for name, outcome in replay(redrawn, random).items():
            kept = [int(order[place]) for place in outcome.kept]
            outcomes.setdefault(name, []).append(Outcome(outcome.runs, kept, int(order[outcome.choice])))
    return {name: judge(grid, found) for name, found in outcomes.items()}


def show(grid: Grid, rows: dict[str, Row]) -> None:
    """Print the table of one grid."""
    count = len(find_best(grid.differences).members)
    shape = f"{len(grid.specs)} configurations × {grid.num_seeds} seeds, {len(grid.num_bytes)} documents"
    agreement = ", ".join(
        f"{value:.2f} from {share:.3g}" for share, value in zip(grid.shares, grid.agreement, strict=True)
    )
    print(f"\n{grid.name}: {shape}; {count} may be the best")
    print(f"order at the rungs and at the end, Spearman: {agreement}\n")
    print("| search | cost % | in the set % | best kept % | best chosen % | regret, mean | 95 % |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, row in rows.items():
        shares = (row.cost, row.in_the_set, row.best_kept, row.best_chosen)
        regrets = (row.mean_regret, row.high_regret)
        shown = [f"{100.0 * share:.1f}" for share in shares] + [f"{1000.0 * regret:.2f}" for regret in regrets]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


def main() -> None:
    """Print a table for each grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grids", type=Path, nargs="+", metavar="GRID", help="files of record_grid.py")
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-seeds", type=int, metavar="N", help="the first N of those recorded; all without it")
    parser.add_argument("--new-seeds", action="store_true", help="drawn around the mean of those recorded")
    chosen = parser.parse_args()
    if chosen.replays < 1:
        parser.error(f"--replays: {chosen.replays} is not accepted; at least 1 is")
    if chosen.num_seeds is not None and chosen.num_seeds < 2:
        parser.error(f"--num-seeds: {chosen.num_seeds} is not accepted; at least 2 are, as racing needs two")
    if find_spec("optuna") is None:
        print("ASHA and Hyperband are left out: pip install 'lorabench[search]'", file=sys.stderr)
    for path in chosen.grids:
        try:
            grids = read_grids(path)
        except OSError:
            parser.error(f"{path}: there is no such file, or it cannot be read; benchmarks/record_grid.py writes one")
        except ValueError as error:
            parser.error(f"{path}: {error}")
        for grid in [grid.with_first_seeds(chosen.num_seeds or grid.num_seeds) for grid in grids]:
            show(grid, replay_often(grid, chosen.replays, chosen.seed, has_new_seeds=chosen.new_seeds))


if __name__ == "__main__":
    main()
