"""In which order several workers get the runs of an experiment."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from lorabench.runs.order import Job, Waiting, makespan


def taken(jobs: Sequence[Job], num_workers: int, held: Job | None = None) -> list[str]:
    waiting = Waiting(num_workers)
    for job in jobs:
        waiting.add(job)
    order = []
    while waiting:
        held = waiting.take(held)
        order.append(held.run_id)
    return order


def test_the_longest_go_first_and_equal_ones_as_they_came() -> None:
    jobs = [Job(name, "base", "corpus", seconds) for name, seconds in (("a", 1), ("b", 3), ("c", 2), ("d", 3))]
    assert taken(jobs, 2) == ["b", "d", "c", "a"]


def test_a_worker_stays_with_its_corpus_and_its_base() -> None:
    jobs = [
        Job(f"{base}{corpus}{index}", base, corpus, 100.0) for index in range(10) for base in "XY" for corpus in "pq"
    ]
    order = taken(jobs, 2, held=jobs[1])
    assert [name[:2] for name in order[:10]] == ["Xq"] * 10
    assert [name[:2] for name in order[10:20]] == ["Xp"] * 10


def test_a_run_that_would_end_last_goes_first_wherever_the_worker_is() -> None:
    jobs = [Job(f"short {index}", "X", "p", 10.0) for index in range(20)]
    assert taken([*jobs, Job("long", "Y", "p", 100.0)], 2, held=jobs[0])[0] == "long"
    assert taken([*jobs, Job("hardly longer", "Y", "p", 12.0)], 64, held=jobs[0])[0] == "short 0"


def test_workers_spread_over_bases_and_corpora() -> None:
    """Two that start together do not wait for the same scores of the same base."""
    jobs = [Job(f"{corpus}{index}", "X", corpus, 10.0) for corpus in "pq" for index in range(20)]
    waiting = Waiting(2)
    for job in jobs:
        waiting.add(job)
    first = waiting.take()
    assert waiting.take(None, [first]).corpus != first.corpus


@pytest.mark.parametrize("num_workers", [1, 2, 7, 16])
def test_workers_are_done_at_about_the_same_time(num_workers: int) -> None:
    """No order is done before the sum by the number of workers, or the longest run."""
    draw = random.Random(num_workers)
    jobs = [
        Job(f"{base}{corpus}{index}", base, corpus, scale * draw.uniform(0.5, 2.0))
        for base, scale in enumerate((60.0, 90.0, 400.0))
        for corpus in range(5)
        for index in range(12)
    ]
    bound = max(sum(job.seconds for job in jobs) / num_workers, max(job.seconds for job in jobs))
    assert bound <= makespan(jobs, num_workers) <= 1.05 * bound


def test_an_experiment_without_runs_takes_no_time() -> None:
    assert makespan([], 3) == 0.0
