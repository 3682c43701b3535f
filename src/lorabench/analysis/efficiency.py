"""Quality against what it takes: which candidates no other beats in both."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence

from lorabench.analysis.candidates import CorpusGroup
from lorabench.analysis.findings import EfficiencyPoint
from lorabench.analysis.pairing import Measured


def efficiency_points(groups: Sequence[CorpusGroup]) -> tuple[EfficiencyPoint, ...]:
    """Candidates with what they take; fronts only within one corpus, hardware and precision."""
    points = []
    for group in groups:
        places: dict[tuple[str, str], list[Measured]] = defaultdict(list)
        for item in group.candidates:
            places[item.shown.cost.hardware, item.shown.cost.precision].append(item)
        for (hardware, precision), items in sorted(places.items()):
            spread, is_told = _speed_spread(items)
            speed = _front(items, lambda item: _negative(item.shown.cost.bytes_per_second)) if is_told else set()
            memory = _front(items, lambda item: item.shown.cost.peak_memory_bytes)
            size = _front(items, lambda item: item.shown.cost.adapter_bytes)
            points += [
                EfficiencyPoint(
                    candidate=item.key,
                    corpus=group.label,
                    hardware=hardware,
                    precision=precision,
                    bits_per_byte=item.estimate,
                    cost=item.shown.cost,
                    on_speed_front=item.key in speed,
                    on_memory_front=item.key in memory,
                    on_size_front=item.key in size,
                    speed_spread=spread,
                    is_speed_told=is_told,
                )
                for item in items
            ]
    return tuple(points)


def _speed_spread(items: Sequence[Measured]) -> tuple[float | None, bool]:
    """By which like runs differ in speed, and whether the configurations differ by more.

    Like are runs of one configuration whatever the seed and the learning rate, which cost no time.
    """
    alike: dict[str, list[float]] = defaultdict(list)
    for item in items:
        key = repr(sorted((axis, value) for axis, value in item.shown.settings.items() if axis != "learning_rate"))
        alike[key] += item.shown.cost.speeds
    spreads = [_range(speeds) for speeds in alike.values() if len(speeds) > 1]
    if not spreads:
        return None, True
    spread = statistics.median(spreads)
    medians = [statistics.median(speeds) for speeds in alike.values() if speeds]
    return spread, len(medians) < 2 or _range(medians) > spread


def _range(values: Sequence[float]) -> float:
    """From the lowest to the highest, as a share of the median."""
    return (max(values) - min(values)) / statistics.median(values)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _front(items: Sequence[Measured], cost_of: Callable[[Measured], float | None]) -> set[str]:
    """Keys of items that no other beats in quality or cost while being at least as good in the other."""
    known = [(item.estimate, cost, item.key) for item in items if (cost := cost_of(item)) is not None]
    front: set[str] = set()
    cheapest, quality = float("inf"), float("nan")
    for estimate, cost, key in sorted(known):
        if cost < cheapest or (cost == cheapest and estimate == quality):
            front.add(key)
            cheapest, quality = cost, estimate
    return front
