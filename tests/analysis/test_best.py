"""The set that holds the best: how often the best is out, how often it is named alone, and what a member costs."""

from __future__ import annotations

import numpy as np
import pytest

from lorabench.analysis.best import Subset, find_best
from lorabench.analysis.statistics import Floats, Uncertain, compare_all
from tests.analysis.test_statistics import lengths, nats

NOISE = 0.05
"""Bits per byte by which candidates differ on single documents."""


def draw(random: np.random.Generator, truth: Floats, num_documents: int, noise: float = NOISE) -> Uncertain:
    num_bytes = lengths(random, num_documents)
    documents = 1.0 + random.normal(0.0, 0.25, num_documents)
    bits = documents + truth[:, None] + random.normal(0.0, noise, (len(truth), num_documents))
    return compare_all(nats(bits[:, None, :], num_bytes), num_bytes)


@pytest.mark.parametrize(("num_candidates", "num_documents"), [(2, 40), (3, 40), (6, 40), (12, 10), (12, 200)])
@pytest.mark.parametrize("slip", [0.0, 0.01])
def test_the_best_is_out_at_most_five_times_in_a_hundred(num_candidates: int, num_documents: int, slip: float) -> None:
    """Of equals any one is the best; else the others rise by `slip` each, so that members leave in several rounds."""
    random, repetitions = np.random.default_rng(num_candidates), 1000
    truth = slip * np.arange(num_candidates)
    out = sum(0 not in find_best(draw(random, truth, num_documents)).members for _ in range(repetitions))
    assert out / repetitions <= 0.05 + 2.0 * np.sqrt(0.05 * 0.95 / repetitions)


def test_a_best_that_is_clearly_lower_is_named_alone() -> None:
    """Twelve on 200 documents, better by 0.02: correcting for all pairs of four corpora would seldom name it."""
    random, repetitions = np.random.default_rng(1), 400
    truth = np.array([0.0, *[0.02] * 11])
    alone = by_all_pairs = 0
    for _ in range(repetitions):
        differences = draw(random, truth, 200, noise=0.034)
        alone += find_best(differences).members == (0,)
        by_all_pairs += bool((differences.p_value()[0, 1:] * 4 * 66 < 0.05).all() and differences.estimate[0].max() < 0)
    assert alone / repetitions >= 0.6
    assert by_all_pairs / repetitions <= 0.15


def test_members_leave_one_round_after_another() -> None:
    """The third is told from the first only once the fourth to twelfth have left and fewer could be better."""
    estimate = np.array([0.0, 0.001, 0.012, *[0.1] * 9])
    differences = exact(estimate, half=0.01)
    subset = find_best(differences)
    assert subset.members == (0, 1)
    assert subset.factors[3] == 5.5
    assert subset.factors[2] == subset.factors[0] == 1.0
    assert subset.beaten_by[2] == 0


def test_what_a_member_costs_at_most_holds() -> None:
    random, repetitions, holds = np.random.default_rng(4), 600, 0
    truth = np.array([0.0, 0.005, 0.01, 0.02])
    for _ in range(repetitions):
        subset = find_best(draw(random, truth, 60))
        holds += all(truth[place] - truth.min() <= cost + 1e-12 for place, cost in subset.cost_at_most.items())
    assert holds / repetitions >= 0.94


def test_where_nothing_can_be_compared_nothing_leaves() -> None:
    unknown = np.full((3, 3), np.nan)
    assert find_best(Uncertain(unknown, unknown, unknown, unknown, unknown)) == Subset(
        (0, 1, 2), {}, dict.fromkeys(range(3), 1.0), {}
    )


def exact(estimate: Floats, half: float) -> Uncertain:
    """Differences whose 95 % half-width is `half` with endless degrees of freedom."""
    shape = (len(estimate), len(estimate))
    return Uncertain(
        estimate[:, None] - estimate[None, :],
        np.full(shape, (half / 1.959964) ** 2),
        np.full(shape, 1e9),
        np.zeros(shape),
        np.ones(shape),
    )
