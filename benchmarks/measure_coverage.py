"""Measures how often 95 % intervals hold the truth and how often families of equals see a call; see docs/statistics.md.

python benchmarks/measure_coverage.py [--repetitions 4000] [--seeds 1 2 3 5]
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import numpy.typing as npt

from lorabench.analysis.statistics import Floats, compare_all, compare_pair, estimate_figure, holm

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


def several_seeds(
    random: np.random.Generator, shape: tuple[int, int, int], seed_deviation: float, residual: float
) -> tuple[Floats, Floats]:
    """Equal candidates: nll [K, S, D] with documents, configurations, seeds (a shift of a whole run) and noise."""
    num_candidates, num_seeds, num_documents = shape
    num_bytes = lengths(random, num_documents, 1.0)
    bits = 1.0 + random.normal(0.0, 0.25, num_documents)
    bits = bits + random.normal(0.0, 0.02, (num_candidates, 1, num_documents))
    bits = bits + random.normal(0.0, seed_deviation, (1, num_seeds, 1))
    bits = bits + random.normal(0.0, seed_deviation, (num_candidates, num_seeds, 1))
    bits = bits + random.normal(0.0, residual, shape)
    return bits * num_bytes * LN2, num_bytes


def measure_seeds(repetitions: int, numbers_of_seeds: list[int]) -> None:
    """Differences of two candidates, and families of many, by number of seeds."""
    print("| seeds | documents | spread over seeds | difference of 2 | pair among 9 | family of 9 with a call |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for num_seeds in numbers_of_seeds:
        for num_documents in (20, 60, 200):
            for seed_deviation in (0.0,) if num_seeds == 1 else (0.0, 0.001, 0.003, 0.01):
                random = np.random.default_rng(num_documents)
                counts = np.zeros(3)
                for _ in range(repetitions):
                    nll, num_bytes = several_seeds(random, (2, num_seeds, num_documents), seed_deviation, 0.01)
                    pair = compare_pair(nll[0], nll[1], num_bytes)
                    counts[0] += abs(pair.estimate) <= pair.half_width()
                    counts[1:] += among_nine(random, num_seeds, num_documents, seed_deviation)
                shown = " | ".join(f"{100 * share:.1f}" for share in counts / repetitions)
                print(f"| {num_seeds} | {num_documents} | {seed_deviation} | {shown} |")


def among_nine(
    random: np.random.Generator, num_seeds: int, num_documents: int, seed_deviation: float
) -> npt.NDArray[np.bool_]:
    """Whether a given pair's interval holds zero, and whether any of the 36 pairs is called."""
    nll, num_bytes = several_seeds(random, (9, num_seeds, num_documents), seed_deviation, 0.01)
    pairs = compare_all(nll, num_bytes)
    upper = np.triu_indices(9, 1)
    called = bool((holm(pairs.p_value()[upper]) < 0.05).any())
    return np.array([bool(abs(pairs.estimate[0, 1]) <= pairs.half_width()[0, 1]), called])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 5], help="for the second table")
    chosen = parser.parse_args()
    measure_documents(chosen.repetitions)
    print()
    measure_seeds(chosen.repetitions, chosen.seeds)


if __name__ == "__main__":
    main()
