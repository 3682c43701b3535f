"""Quality against what it takes: which candidates no other beats in both."""

from __future__ import annotations

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
            speed = _front(items, lambda item: _negative(item.shown.cost.bytes_per_second))
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
                )
                for item in items
            ]
    return tuple(points)


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
