"""The `search` section: what it fills in, what it draws, and what contradicts it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from lorabench.core.errors import ConfigError
from lorabench.experiment.ladder import plan_rungs, search_cost
from lorabench.experiment.schema import build_experiment
from lorabench.experiment.search import SearchSettings

GRID: dict[str, Any] = {
    "name": "a",
    "models": ["gpt2"],
    "datasets": ["news"],
    "adapter": {"rank": [4, 8, 16]},
    "training": {"learning_rate": [1e-4, 1e-3, 1e-2]},
}
RANGE = {"learning_rate": {"log_uniform": [1e-5, 1e-2]}}


def test_a_search_chooses_a_schedule_that_rungs_can_share() -> None:
    experiment = build_experiment({**GRID, "search": {"strategy": "halving"}})
    assert experiment.search is not None
    assert experiment.search.shares == (1 / 27, 1 / 9, 1 / 3)
    assert experiment.all_seeds == (0, 1, 2)
    assert experiment.num_runs == 27
    assert experiment.evaluation.times == 1
    (first, *_) = experiment.trainings()
    assert (first.schedule, first.warmup_ratio) == ("wsd", 0.009259)
    assert build_experiment(yaml.safe_load(experiment.to_yaml())) == experiment
    asked = build_experiment({**GRID, "training": {"schedule": "cosine"}, "search": "halving"})
    assert asked.trainings()[0].schedule == "cosine"


def test_rungs_are_as_far_apart_as_eta_says_where_nothing_else_does() -> None:
    for strategy in ("halving", "racing"):
        asked = {"strategy": strategy, "eta": 4}
        experiment = build_experiment({**GRID, "search": asked, "seeds": [0, 1]})
        assert experiment.search is not None
        assert experiment.search.shares == (1 / 64, 1 / 16, 1 / 4)
        assert build_experiment(yaml.safe_load(experiment.to_yaml())) == experiment


def test_more_of_a_search_begins_with_the_same_configurations() -> None:
    for training in (RANGE, GRID["training"]):
        few, many = (
            build_experiment({**GRID, "training": training, "search": {"budget": {"runs": count}}}).combinations()
            for count in (4, 8)
        )
        assert len(few) == 4
        assert many[:4] == few
        assert len(set(map(repr, many))) == 8
    rates = [drawn.learning_rate for _, drawn in many]
    assert all(1e-5 <= rate <= 1e-2 for rate in rates)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"search": {"strategy": "halvin"}},
            "search.strategy: 'halvin' is not accepted; should be 'matrix'",
        ),
        ({"search": {"strategy": "matrix", "eta": 3}}, "search.eta: matrix trains every run to its end; leave it out"),
        (
            {"search": {"strategy": "matrix", "budget": {"runs": 5}}},
            "search.budget: matrix trains every run",
        ),
        ({"search": {"rungs": [0.5, 0.2]}}, "search.rungs: rising shares of a run are expected"),
        ({"search": {"rungs": ["1/0"]}}, "search.rungs: '1/0' is no share of a run, such as 1/9"),
        ({"search": {"keep": True}}, "search.keep: True is not accepted"),
        ({"search": {"spread": 1}}, "search.spread: unknown key. Accepted: strategy, rungs, eta"),
        ({"search": {"budget": 5}}, r"search.budget: 5 is not accepted; give a unit, such as {runs: 27}"),
        ({"search": {"budget": {"runs": 5, "hours": 1}}}, "give one of runs, bytes and hours"),
        ({"search": "racing"}, "seeds: racing compares over documents and seeds, and one seed decides nothing"),
        ({"search": {"strategy": "racing", "keep": 2}}, "search.keep: racing keeps every configuration"),
        ({"training": RANGE}, "training.learning_rate: it is a range to draw from"),
        ({"training": RANGE, "search": "halving"}, "search.budget: training.learning_rate is a range, so say how many"),
        (
            {"training": {"warmup_ratio": 0.2}, "search": "halving"},
            "training.warmup_ratio: 0.2 reaches beyond",
        ),
        ({"training": {"devices": 2}, "search": "halving"}, "training.devices: a search trains each run on one device"),
        ({"search": "tpe"}, "search.budget: tpe goes on for as long as it is told; give one, such as {runs: 27}"),
        ({"search": {"strategy": "tpe", "eta": 3}}, "search.eta: tpe trains every run to its end; leave it out"),
        ({"training": {"warmup_ratio": {"uniform": [0.2, 0.1]}}}, "[0.2, 0.1] is not accepted; the lowest is below"),
        ({"adapter": {"rank": {"uniform": [4, 8.5]}}}, "adapter.rank: 8.5 is not accepted"),
        (
            {"training": {"warmup_ratio": {"uniform": [0.0, 0.2]}}, "search": {"budget": {"runs": 4}}},
            "training.warmup_ratio: 0.2 reaches beyond",
        ),
        ({"training": {"batch_size": {"log_uniform": [1, 8]}}}, "batch_size is no continuous number; give a list"),
    ],
)
def test_a_search_that_contradicts_itself_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        build_experiment({**GRID, **changes})


def test_the_optimizers_of_a_search_over_a_range_are_known() -> None:
    training = {**RANGE, "optimizer": ["adamw", "muon"]}
    assert build_experiment({**GRID, "training": training, "search": {"budget": {"runs": 3}}}).optimizers == {
        "adamw",
        "muon",
    }


def test_27_configurations_cost_a_ninth_of_all_of_them() -> None:
    """With a trunk that rungs share, and a seventh where each rung begins anew."""
    (trunk, *_) = build_experiment({**GRID, "search": "halving"}).trainings()
    search = SearchSettings(eta=3, keep=1, seeds_at_the_end=1)
    rungs = plan_rungs(search, 27, trunk)
    assert [rung.num_configurations for rung in rungs] == [27, 9, 3, 1]
    assert search_cost(search, 27, trunk, 1, at_most=True) == pytest.approx(3.2)
    anew = trunk.model_copy(update={"schedule": "cosine"})
    assert search_cost(search, 27, anew, 1, at_most=True) == pytest.approx(4.0)
    more_seeds = SearchSettings(eta=3, keep=1, seeds_at_the_end=3)
    assert search_cost(more_seeds, 27, trunk, 1, at_most=True) == pytest.approx(5.2)
    usual = plan_rungs(SearchSettings(), 27, trunk)
    assert [rung.num_configurations for rung in usual] == [27, 14, 7, 4]
    ends = 14 * (1 / 9 - 0.8 / 27) + 7 * (1 / 3 - 0.8 / 9) + 4 * (1 - 0.8 / 3)
    assert search_cost(SearchSettings(), 27, trunk, 1, at_most=True) == pytest.approx(1 + ends + 2 * 2)
    racing = SearchSettings(strategy="racing", seeds_at_the_end=2)
    assert racing.shares == (1 / 9, 1 / 3)
    assert SearchSettings(strategy="racing", eta=3).shares == pytest.approx((1 / 27, 1 / 9, 1 / 3))
    assert search_cost(racing, 27, trunk, 2, at_most=False) < search_cost(racing, 27, trunk, 2, at_most=True)


def test_a_range_is_drawn_evenly_over_its_values_or_their_logarithm() -> None:
    axes = {"rank": {"log_uniform": [2, 128]}, "dropout": {"uniform": [0.0, 0.2]}}
    search = {"budget": {"runs": 64}}
    points = [point for point, _ in build_experiment({**GRID, "adapter": axes, "search": search}).combinations()]
    assert all(isinstance(point.rank, int) and 2 <= point.rank <= 128 for point in points)
    assert sum(point.rank < 16 for point in points) == pytest.approx(32, abs=2)
    assert sum(point.dropout < 0.1 for point in points) == pytest.approx(32, abs=2)


@pytest.mark.parametrize("strategy", ["matrix", "halving", "racing", "tpe"])
def test_what_is_written_of_a_search_can_be_read(strategy: str) -> None:
    budget = {"budget": {"runs": 5}} if strategy == "tpe" else {}
    for values in (budget, {"rungs": [1 / 9, 1 / 3]} if strategy in ("halving", "racing") else budget):
        search = SearchSettings.model_validate({"strategy": strategy, **values})
        assert SearchSettings.model_validate_json(search.model_dump_json()) == search
        experiment = build_experiment({**GRID, "search": {"strategy": strategy, **values}, "seeds": [0, 1]})
        assert build_experiment(yaml.safe_load(experiment.to_yaml())) == experiment
