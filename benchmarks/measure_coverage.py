"""Measures how often 95 % intervals hold the truth and how often families of equals see a call; see docs/statistics.md.

python benchmarks/measure_coverage.py [--repetitions 1000] [--seeds 1 2 3 5] [--population FILE]
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lorabench.analysis.best import find_best
from lorabench.analysis.statistics import Floats, compare_all, estimate_figure, holm

LN2 = math.log(2.0)


def lengths(random: np.random.Generator, num_documents: int, log_deviation: float) -> Floats:
    """Bytes of documents, lognormal."""
    drawn: Floats = np.maximum(20.0, random.lognormal(7.0, log_deviation, num_documents).round())
    return drawn


def one_seed(random: np.random.Generator, kind: str, num_documents: int, log_deviation: float) -> tuple[Floats, Floats]:
    """Bits per byte of documents whose true figure is 1, and their bytes."""
    num_bytes = lengths(random, num_documents, log_deviation)
    noise = random.normal(0.0, 0.25, num_documents)
    if kind == "bytes":
        noise *= np.sqrt(1100.0 / num_bytes)
    if kind == "heavy tails":
        noise = 0.15 * random.standard_t(4, num_documents)
    if kind == "skewed":
        noise = 0.3 * (random.lognormal(0.0, 0.6, num_documents) / math.exp(0.18) - 1.0)
    return 1.0 + noise, num_bytes


def percentile_bootstrap(random: np.random.Generator, nats: Floats, num_bytes: Floats) -> tuple[float, float]:
    """The usual interval, for comparison."""
    weights = random.multinomial(len(nats), np.full(len(nats), 1.0 / len(nats)), size=1000)
    low, high = np.quantile((weights @ nats) / (LN2 * (weights @ num_bytes)), [0.025, 0.975])
    return float(low), float(high)


def measure_documents(repetitions: int) -> None:
    """One seed: coverage by number of documents, spread of lengths and kind of noise."""
    print("| documents | lengths | whole-document noise | independent bytes | heavy tails | skewed | bootstrap |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for num_documents in (20, 40, 80, 200):
        for log_deviation in (0.5, 1.0, 1.5):
            cells = []
            random = np.random.default_rng(num_documents)
            for kind in ("document", "bytes", "heavy tails", "skewed"):
                hits = 0
                for _ in range(repetitions):
                    bits, num_bytes = one_seed(random, kind, num_documents, log_deviation)
                    result = estimate_figure((bits * num_bytes * LN2)[None], num_bytes)
                    hits += bool(abs(result.estimate - 1.0) <= result.half_width())
                cells.append(hits / repetitions)
            hits, tries = 0, max(1, repetitions // 4)
            for _ in range(tries):
                bits, num_bytes = one_seed(random, "document", num_documents, log_deviation)
                low, high = percentile_bootstrap(random, bits * num_bytes * LN2, num_bytes)
                hits += low <= 1.0 <= high
            cells.append(hits / tries)
            print(f"| {num_documents} | {log_deviation} | " + " | ".join(f"{100 * cell:.1f}" for cell in cells) + " |")


Case = tuple[Floats, Floats, list[int]]
"""Nats [K, S, D], bytes [D], groups [K]."""


@dataclass(frozen=True)
class Population:
    """Real results of one corpus, made equal in truth: every configuration has the same figure over all it holds."""

    nats: Floats
    """[configurations, seeds, documents]."""
    num_bytes: Floats
    rates: Floats

    def draw(self, random: np.random.Generator, num_seeds: int, num_documents: int) -> tuple[Floats, Floats]:
        """Documents drawn with replacement, and seeds that vary and move together as the recorded ones do.

        A drawn seed adds to the mean over seeds what the recorded seeds differ by from it, each times a standard normal
        number, so that covariances stay what they are. One seed is equal in truth by itself, as its intervals are
        meant for that seed alone.
        """
        mean = self.nats.mean(axis=1, keepdims=True)
        weights = random.normal(0.0, 1.0, (num_seeds, self.nats.shape[1])) / math.sqrt(self.nats.shape[1] - 1.0)
        nats = mean + np.einsum("st,ctd->csd", weights, self.nats - mean)
        if num_seeds == 1:
            nats = made_equal(nats, self.num_bytes)
        documents = random.integers(0, self.nats.shape[2], num_documents)
        return nats[:, :, documents], self.num_bytes[documents]


def made_equal(nats: Floats, num_bytes: Floats) -> Floats:
    """Each configuration's figure over all seeds and documents moved to the mean of all; nats [K, S, D]."""
    figures = nats.sum(axis=2).mean(axis=1) / num_bytes.sum()
    return np.asarray(nats - (figures - figures.mean())[:, None, None] * num_bytes)


def read_populations(path: Path) -> dict[str, Population]:
    """By corpus; made by `benchmarks/record_population.py`."""
    with np.load(path, allow_pickle=False) as arrays:
        found = {}
        for corpus in sorted(name.removesuffix("_nats") for name in arrays if name.endswith("_nats")):
            nats = arrays[f"{corpus}_nats"].astype(np.float64)
            num_bytes = arrays[f"{corpus}_bytes"].astype(np.float64)
            found[corpus] = Population(made_equal(nats, num_bytes), num_bytes, arrays["rates"])
        return found


def unequal_seeds(random: np.random.Generator, num_seeds: int, num_documents: int) -> Case:
    """Nine equal candidates in three groups that spread over seeds as 1 to 3 to 10, and that seeds move together."""
    num_bytes = lengths(random, num_documents, 1.0)
    groups = np.repeat([0, 1, 2], 3)
    spread = np.array([0.001, 0.003, 0.01])[groups][:, None]
    moved = spread * (random.normal(0.0, 0.8, num_seeds) + random.normal(0.0, 0.6, (9, num_seeds)))
    bits = 1.0 + random.normal(0.0, 0.25, num_documents) + random.normal(0.0, 0.02, (9, 1, num_documents))
    bits = bits + random.normal(0.0, 0.01, (9, num_seeds, num_documents))
    bits = bits + (moved[:, :, None] if num_seeds > 1 else 0.0)  # one seed's intervals are meant for that seed alone
    return bits * num_bytes * LN2, num_bytes, groups.tolist()


def judge(nll: Floats, num_bytes: Floats, alike: list[int]) -> tuple[npt.NDArray[np.bool_], bool, bool, bool]:
    """Of equals: which pairs' intervals hold zero, whether Holm's family has a call, the first is out, one is alone."""
    pairs = compare_all(nll, num_bytes, alike)
    upper = np.triu_indices(len(nll), 1)
    holds = (np.abs(pairs.estimate) <= pairs.half_width())[upper]
    members = find_best(pairs).members
    return holds, bool((holm(pairs.p_value()[upper]) < 0.05).any()), 0 not in members, len(members) == 1


def print_seeds(name: str, num_seeds: int, num_documents: int, drawn: Iterable[Case]) -> None:
    """One row of the second table."""
    results = [judge(*case) for case in drawn]
    holds = np.mean([holds for holds, *_ in results], axis=0)
    shares = [100 * float(np.mean([result[place] for result in results])) for place in (1, 2, 3)]
    shown = " | ".join(f"{share:.1f}" for share in (100 * holds.mean(), 100 * holds.min(), *shares))
    print(f"| {name} | {num_seeds} | {num_documents} | {shown} |", flush=True)


def measure_seeds(repetitions: int, numbers_of_seeds: list[int], populations: dict[str, Population]) -> None:
    """Pairs, families and the set that holds the best, of equals: made up, and drawn from real results."""
    print("| results | seeds | documents | pairs hold | worst pair | family with a call | best is out | one alone |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for num_seeds in numbers_of_seeds:
        for num_documents in (10, 40, 200):
            random = np.random.default_rng(1000 * num_seeds + num_documents)
            made = (unequal_seeds(random, num_seeds, num_documents) for _ in range(repetitions))
            print_seeds("unequal spread", num_seeds, num_documents, made)
            for corpus, population in populations.items():
                alike = np.unique(population.rates, return_inverse=True)[1].tolist()
                draws = (population.draw(random, num_seeds, num_documents) for _ in range(repetitions))
                print_seeds(corpus, num_seeds, num_documents, ((*draw, alike) for draw in draws))


def measure_best(repetitions: int) -> None:
    """How often a best that leads by 0.02 is named alone: by the set that holds it, and by correcting for all pairs."""
    print("| candidates | documents | noise | named alone | by all pairs of four corpora | best is out |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    models = [0.02, 0.02] + 9 * [0.3]
    designs = [("3", 2 * [0.02]), ("6", 5 * [0.02]), ("12", 11 * [0.02]), ("4 models at 3 ranks", models)]
    for (name, slips), num_documents, noise in itertools.product(designs, (40, 200), (0.015, 0.034)):
        random, truth, counts = np.random.default_rng(1), np.array([0.0, *slips]), np.zeros(3)
        for _ in range(repetitions):
            num_bytes = lengths(random, num_documents, 1.0)
            documents = 1.0 + random.normal(0.0, 0.25, num_documents)
            bits = documents + truth[:, None] + random.normal(0.0, noise, (len(truth), num_documents))
            pairs = compare_all((bits * num_bytes * LN2)[:, None, :], num_bytes)
            members = find_best(pairs).members
            num_pairs = 4 * len(truth) * (len(truth) - 1) // 2
            is_called = (pairs.p_value()[0, 1:] * num_pairs < 0.05) & (pairs.estimate[0, 1:] < 0)
            counts += [members == (0,), is_called.all(), 0 not in members]
        shown = " | ".join(f"{100 * share:.0f}" for share in counts / repetitions)
        print(f"| {name} | {num_documents} | {noise} | {shown} |", flush=True)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 5], help="for the second table")
    parser.add_argument("--only-seeds", action="store_true", help="leave out the first table")
    parser.add_argument("--population", type=Path, default=Path(__file__).parents[1] / "tests/data/population.npz")
    chosen = parser.parse_args()
    if not chosen.only_seeds:
        measure_documents(chosen.repetitions)
        print()
    measure_seeds(chosen.repetitions, chosen.seeds, read_populations(chosen.population))
    print()
    measure_best(chosen.repetitions)


if __name__ == "__main__":
    main()
