"""How many configurations a search with a budget in bytes or hours begins with."""

from __future__ import annotations

from collections.abc import Callable

from lorabench.core.canonical import fingerprint
from lorabench.core.errors import ConfigError
from lorabench.core.storage import cache_root, recall, remember
from lorabench.experiment.ladder import search_cost
from lorabench.experiment.schema import MAX_RUNS, Experiment
from lorabench.experiment.search import SearchBudget


def with_budget_in_runs(experiment: Experiment, seconds_of_one: Callable[[Experiment], float]) -> Experiment:
    """The experiment with as many configurations as its search can afford.

    `seconds_of_one` is told an experiment of one configuration a model, and gives the mean of what its runs take. What
    an experiment was given for its hours it keeps, on this machine: a search must not change while estimates do.
    Raises ConfigError where the budget is too small for one.
    """
    search = experiment.search
    budget = None if search is None else search.budget
    if search is None or budget is None or budget.runs is not None:
        return experiment
    one = _with_runs(experiment, len(experiment.models))
    if budget.bytes is not None:
        epochs = max(training.epochs for _, training in one.combinations())
        affordable = _affordable(experiment, budget.bytes, experiment.largest_train_bytes * epochs, at_most=True)
        return _with_runs(experiment, affordable)
    assert budget.hours is not None
    path = cache_root() / "searches" / f"{fingerprint(experiment.model_dump(mode='json', exclude={'reference'}))}.json"
    known = recall(path)
    if not isinstance(known, int) or not 1 <= known <= MAX_RUNS:
        known = _affordable(experiment, 3600.0 * budget.hours, seconds_of_one(one), at_most=False)
        remember(path, known)
    return _with_runs(experiment, known)


def _with_runs(experiment: Experiment, count: int) -> Experiment:
    assert experiment.search is not None
    search = experiment.search.model_copy(update={"budget": SearchBudget(runs=count)})
    return experiment.model_copy(update={"search": search})


def _affordable(experiment: Experiment, allowed: float, of_one: float, *, at_most: bool) -> int:
    """Configurations whose search costs no more than what is allowed, where one whole run costs `of_one`."""
    search = experiment.search
    assert search is not None
    _, settings = _with_runs(experiment, 1).combinations()[0]

    def cost(count: int) -> float:
        whole = search_cost(search, count, settings, len(experiment.seeds), at_most=at_most)
        return whole * len(experiment.datasets) * of_one

    if cost(1) > allowed:
        needed = f"{cost(1):,.0f} bytes" if at_most else f"{cost(1) / 3600:.2g} hours"
        raise ConfigError(f"search.budget: one configuration alone costs {needed}; give at least that")
    low, high = 1, MAX_RUNS
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= allowed else (low, middle - 1)
    return low
