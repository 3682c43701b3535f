"""Measures how often differences of the size that designs are said to detect are detected; see docs/statistics.md.

python benchmarks/measure_power.py [--repetitions 1000] [--seeds 1 2 3 5]

80 of a hundred are meant: of a pair alone, and of the best of 12 that leads all others by the size named and is to be
named alone. In the last column the spread is not known but measured in earlier runs, on other documents.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from lorabench.analysis.best import find_best
from lorabench.analysis.detectable import (
    Errors,
    Spread,
    detectable,
    freedom_per_seed,
    median_of_variance,
    split_of,
)
from lorabench.analysis.rules import LENGTH_EXPONENT, document_freedom
from lorabench.analysis.statistics import Floats, Uncertain, compare_all, stack

LN2 = math.log(2.0)
NOISE = 0.02
"""Bits per byte of a document of 1100 bytes, between two configurations."""
SEED_DEVIATIONS = (0.0007, 0.0024, 0.0075)
"""Of a run, in bits per byte: at learning rates of 3e-4, 1e-3 and 3e-3."""
NUM_CANDIDATES = 12


def draw_lengths(random: np.random.Generator, num_documents: int) -> Floats:
    """Bytes of documents, lognormal."""
    lengths: Floats = np.maximum(20.0, random.lognormal(7.0, 1.0, num_documents).round())
    return lengths


def draw(
    random: np.random.Generator,
    num_bytes: Floats,
    num_candidates: int,
    num_seeds: int,
    seed_deviation: float,
    exponent: float,
) -> Floats:
    """Equal configurations, nll [K, S, D]: documents vary as bytes ** exponent, and each run moves as a whole."""
    noise = NOISE / math.sqrt(2.0) * 1100.0 ** (1.0 - exponent / 2.0) * num_bytes ** (exponent / 2.0)
    documents = random.normal(0.0, 1.0, (num_candidates, 1, len(num_bytes))) * noise
    moved = seed_deviation / math.sqrt(2.0) if num_seeds > 1 else 0.0  # one seed's verdict is on that seed
    runs = random.normal(0.0, moved, (num_candidates, num_seeds, 1)) * num_bytes
    return LN2 * (documents + runs)


def true_errors(num_bytes: Floats, num_seeds: int, seed_deviation: float, exponent: float) -> Errors:
    """Of the difference of two of these."""
    variance = (NOISE * 1100.0 ** (1.0 - exponent / 2.0)) ** 2 * (num_bytes**exponent).sum() / num_bytes.sum() ** 2
    seeds = seed_deviation**2 / num_seeds if num_seeds > 1 else 0.0
    return Errors(float(variance), document_freedom(num_bytes), seeds, max(1.0, num_seeds - 1.0))


def share_detected(pairs: Sequence[Uncertain], differences: Sequence[float]) -> float:
    """Of true differences of this size."""
    every = stack(pairs)
    return float((np.abs(every.estimate + np.array(differences)) > every.half_width()).mean())


def measure(
    random: np.random.Generator,
    num_documents: int,
    num_seeds: int,
    seed_deviation: float,
    repetitions: int,
    exponent: float = LENGTH_EXPONENT,
) -> tuple[float, float, float]:
    """Shares detected: of a pair, of the best of twelve, and of a pair whose spread is known from earlier runs."""
    together = np.zeros(NUM_CANDIDATES, dtype=int).tolist()
    pairs, alone, planned, num_named = [], [], [], 0
    for repetition in range(repetitions):
        if repetition % 20 == 0:
            num_bytes = draw_lengths(random, num_documents)
            errors = true_errors(num_bytes, num_seeds, seed_deviation, exponent)
            alone_now = detectable(errors) or math.nan
            freedom = (num_seeds - 1.0) * freedom_per_seed(NUM_CANDIDATES, num_seeds)
            pooled = replace(errors, seed_freedom=max(1.0, freedom))
            lead = detectable(pooled, NUM_CANDIDATES) or math.nan
            planned_now = plan_from_earlier(random, num_bytes, num_seeds, seed_deviation, exponent)
        nll = draw(random, num_bytes, NUM_CANDIDATES, num_seeds, seed_deviation, exponent)
        pairs.append(compare_all(nll[:2], num_bytes).take((0, 1)))
        alone.append(alone_now)
        planned.append(planned_now)
        nll[1:] += lead * num_bytes * LN2
        num_named += find_best(compare_all(nll, num_bytes, together)).members == (0,)
    return share_detected(pairs, alone), num_named / repetitions, share_detected(pairs, planned)


def plan_from_earlier(
    random: np.random.Generator, num_bytes: Floats, num_seeds: int, seed_deviation: float, exponent: float
) -> float:
    """The difference that a plan says, from six configurations that ran before on as many other documents."""
    earlier = draw_lengths(random, len(num_bytes))
    nll = draw(random, earlier, 6, max(2, num_seeds), seed_deviation, exponent)
    found = compare_all(nll, earlier, np.zeros(6, dtype=int).tolist())
    upper = np.triu_indices(6, 1)
    unit = (earlier**LENGTH_EXPONENT).sum() / earlier.sum() ** 2
    seeds = float(found.seed_variance[upper].mean()) * max(2, num_seeds)
    variance = median(found.document_variance[upper]) / median_of_variance(found.document_freedom[0, 1])
    spread = Spread(variance / unit, seeds)
    split = split_of(float(num_bytes.sum()), lengths=num_bytes.tolist())
    return detectable(split.errors(split.num_bytes, spread, num_seeds)) or math.nan


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 5])
    chosen = parser.parse_args()
    print("| seeds | documents | spread over seeds | a pair | best of 12 | a pair, spread measured before |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for num_seeds in chosen.seeds:
        for num_documents in (10, 40, 200):
            for deviation in SEED_DEVIATIONS if num_seeds > 1 else (0.0,):
                random = np.random.default_rng(num_documents)
                shares = measure(random, num_documents, num_seeds, deviation, chosen.repetitions)
                shown = " | ".join(f"{100 * share:.1f}" for share in shares)
                print(f"| {num_seeds} | {num_documents} | {deviation} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
