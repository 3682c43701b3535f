"""Strategy: the best of every `eta` at a rung go on, and at least `keep` to the end (Jamieson and Talwalkar 2016).

It promises nothing: at a small budget another configuration may lead than at the whole one.
"""

from __future__ import annotations

from lorabench.experiment.ladder import num_going_on
from lorabench.runs.searching import AtRung, SearchKind


def leave_by_rank(at_rung: AtRung) -> dict[int, str]:
    """All but the lowest; of equals the first in the plan goes on."""
    entrants = at_rung.entrants
    order = sorted(range(len(entrants)), key=lambda place: (entrants[place].bits_per_byte, place))
    num = num_going_on(at_rung.search, len(entrants))
    best, last = entrants[order[0]], entrants[order[num - 1]]
    return {
        place: f"stopped at {at_rung.where}: {entrants[place].bits_per_byte:.4f} bits per byte; the {num} that went on "
        f"had at most {last.bits_per_byte:.4f}, {best.run_ids[0]} the lowest with {best.bits_per_byte:.4f}"
        for place in order[num:]
    }


STRATEGY = SearchKind(leave_by_rank)
