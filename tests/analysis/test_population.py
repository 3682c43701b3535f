"""Intervals and verdicts on results that the tool recorded itself: resampled, and made equal in truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.marks import slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("num_seeds", "num_documents"), [(1, 40), (3, 40), slow(1, 10), slow(2, 40), slow(2, 200)])
def test_recorded_results_made_equal_are_held_and_seldom_called(
    num_seeds: int, num_documents: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six configurations at three rates, four seeds, four corpora; the full table is in docs/statistics.md."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from measure_coverage import judge, read_populations

    populations = read_populations(ROOT / "tests/data/population.npz")
    assert len(populations) >= 4
    random, repetitions, results = np.random.default_rng(num_documents), 150, []
    for population in populations.values():
        assert population.nats.shape[:2] >= (6, 4)
        alike = np.unique(population.rates, return_inverse=True)[1].tolist()
        results += [judge(*population.draw(random, num_seeds, num_documents), alike) for _ in range(repetitions)]
    holds = np.mean([result[0] for result in results])
    family, is_out, is_alone = (float(np.mean([result[place] for result in results])) for place in (1, 2, 3))
    assert 0.925 <= holds <= 0.98
    assert max(family, is_out, is_alone) <= 0.05 + 2.0 * np.sqrt(0.05 * 0.95 / len(results))


def test_the_recorded_file_holds_numbers_only() -> None:
    with np.load(ROOT / "tests/data/population.npz", allow_pickle=False) as arrays:
        assert all(np.issubdtype(arrays[name].dtype, np.number) for name in arrays)
    assert (ROOT / "tests/data/population.npz").stat().st_size < 500_000
