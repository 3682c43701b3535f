"""Strategy: a configuration leaves only when one that goes on is lower, over documents and seeds, beyond chance.

At each rung the step-down comparison with the best (`analysis.best`), its level divided by the number of rungs: the
best at a rung's own budget leaves at most 5 times in a hundred over all of them. What curves do later is not promised.
"""

from __future__ import annotations

import numpy as np

from lorabench.analysis.best import find_best
from lorabench.analysis.statistics import compare_all
from lorabench.experiment.schema import RunSpec
from lorabench.runs.searching import AtRung, SearchKind


def leave_when_beaten(at_rung: AtRung) -> dict[int, str]:
    """Those that are higher than some survivor beyond chance; what cannot be compared stays."""
    results = [entrant.documents for entrant in at_rung.entrants]
    texts = {found[0].fingerprint for found in results if found}
    places = [place for place, found in enumerate(results) if found]
    if len(texts) != 1 or len(places) < 2 or len(results[places[0]]) < 2:
        return {}
    nll = np.stack([[item.nll for item in results[place]] for place in places])
    spread_alike = [spreads_like(at_rung.entrants[place].spec) for place in places]
    alike = [spread_alike.index(kind) for kind in spread_alike]
    differences = compare_all(nll, results[places[0]][0].num_bytes, alike)
    num_rungs = len(at_rung.search.shares)
    best = find_best(differences, num_looks=num_rungs)
    members = np.array(best.members)
    leaving = {}
    for beaten in sorted(best.beaten_by):
        factor = best.factors[beaten] * num_rungs
        against = differences.take((members, np.full_like(members, beaten)))
        lower = members[against.estimate < -against.half_width(factor)].tolist()
        if lower:
            member = min(lower, key=lambda place: float(differences.estimate[place, beaten]))
            shown = differences.take((member, beaten)).interval(nll.shape[2], nll.shape[1], factor=factor).negated
            leaving[places[beaten]] = (
                f"stopped at {at_rung.where}: {at_rung.entrants[places[member]].run_ids[0]} was lower by "
                f"{shown.estimate:.4f} ({shown.low:.4f} to {shown.high:.4f}) bits per byte, over {nll.shape[1]} seeds"
            )
    return leaving


def spreads_like(spec: RunSpec) -> tuple[object, ...]:
    """What a configuration's spread over seeds depends on."""
    return spec.model, spec.adapter.method, spec.training


STRATEGY = SearchKind(leave_when_beaten)
