"""What a search costs before it is done: how many configurations reach each rung, and what a rung takes of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lorabench.experiment.schema import TrainingSettings
from lorabench.experiment.search import SearchSettings

LEFT_BY_RACING = 0.5
"""Of those at a rung so many are expected to go on; at worst all do."""


@dataclass(frozen=True)
class RungPlan:
    """A rung, or the end, before the search."""

    share: float
    num_configurations: int
    """Expected to be trained up to it."""
    num_at_most: int
    cost: float
    """Of one run from the rung before, as a share of a whole run."""


def num_going_on(search: SearchSettings, num: int) -> int:
    """Of `num` configurations at a rung so many go on where the strategy fixes it."""
    return min(num, max(search.keep, math.ceil(num / search.eta)))


def num_kept(search: SearchSettings, num: int) -> int:
    """Of `num` configurations that were trained to the end so many are trained with further seeds."""
    return num if search.strategy == "racing" else min(num, search.keep)


def plan_rungs(search: SearchSettings, num_configurations: int, settings: TrainingSettings) -> list[RungPlan]:
    """Every rung and the end, for one corpus."""
    expected = most = num_configurations
    found, done = [], 0.0
    for rung, share in enumerate((*search.shares, 1.0)):
        if rung and search.strategy == "racing":
            expected = max(1, math.ceil(LEFT_BY_RACING * expected))
        elif rung:
            expected = most = num_going_on(search, expected)
        trunk = trunk_share(share, settings) if share < 1.0 else 0.0
        cost = share - (done if share == 1.0 or trunk else 0.0)
        found.append(RungPlan(share, expected, most, max(0.0, cost)))
        done = trunk
    return found


def trunk_share(share: float, settings: TrainingSettings) -> float:
    """How much of a run up to a rung is the run itself: what follows is the rung's own cool-down.

    Cosine and linear fall all along, so there each rung is trained from the beginning, and a run after its rungs too.
    """
    if settings.schedule == "wsd":
        return share * (1.0 - settings.decay_ratio)
    return share if settings.schedule == "constant" else 0.0


def search_cost(
    search: SearchSettings, num_configurations: int, settings: TrainingSettings, num_seeds: int, *, at_most: bool
) -> float:
    """Of one corpus, in whole runs; those with further seeds at the end included."""
    rungs = plan_rungs(search, num_configurations, settings)
    counts = [rung.num_at_most if at_most else rung.num_configurations for rung in rungs]
    compared = sum(count * rung.cost for count, rung in zip(counts, rungs, strict=True))
    further_seeds = max(0, search.seeds_at_the_end - num_seeds)
    return num_seeds * compared + further_seeds * num_kept(search, counts[-1])
