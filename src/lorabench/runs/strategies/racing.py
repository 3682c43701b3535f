"""Strategy: a configuration leaves only when one that goes on is lower, over documents and seeds, beyond chance.

At each rung the step-down comparison with the best (`analysis.best`), its level divided by the number of rungs: the
best at a rung's own budget leaves at most 5 times in a hundred over all of them. What curves do later is not promised.
"""

from __future__ import annotations

import numpy as np

from lorabench.analysis.best import find_best
from lorabench.analysis.rules import SIGNIFICANCE
from lorabench.analysis.statistics import compare_all
from lorabench.records.documents import DocumentResults
from lorabench.runs.searching import AtRung, Entrant, SearchKind


def leave_when_beaten(at_rung: AtRung) -> dict[int, str]:
    """Those that are higher than some survivor beyond chance; what cannot be compared stays."""
    results = [_documents(at_rung, entrant) for entrant in at_rung.entrants]
    texts = {found[0].fingerprint for found in results if found}
    places = [place for place, found in enumerate(results) if found]
    if len(at_rung.situation.seeds) < 2 or len(texts) != 1 or len(places) < 2:
        return {}
    nll = np.stack([[item.nll for item in results[place]] for place in places])
    spread_alike = [_spreads_like(at_rung.entrants[place]) for place in places]
    alike = [spread_alike.index(kind) for kind in spread_alike]
    differences = compare_all(nll, results[places[0]][0].num_bytes, alike)
    num_rungs = len(at_rung.situation.search.shares)
    best = find_best(differences, num_looks=num_rungs)
    p_values = differences.p_value()
    leaving = {}
    for beaten in sorted(best.beaten_by):
        factor = best.factors[beaten] * num_rungs
        lower = [
            member
            for member in best.members
            if differences.estimate[member, beaten] < 0 and factor * p_values[member, beaten] < SIGNIFICANCE
        ]
        if lower:
            member = min(lower, key=lambda place: float(differences.estimate[place, beaten]))
            shown = differences.take((member, beaten)).interval(nll.shape[2], nll.shape[1], factor=factor).negated
            leaving[places[beaten]] = (
                f"stopped at {at_rung.where}: {at_rung.entrants[places[member]].run_ids[0]} was lower by "
                f"{shown.estimate:.4f} ({shown.low:.4f} to {shown.high:.4f}) bits per byte, over {nll.shape[1]} seeds"
            )
    return leaving


def _documents(at_rung: AtRung, entrant: Entrant) -> list[DocumentResults]:
    """Of every seed, on the same documents; empty where those of one are missing."""
    pairs = zip(entrant.run_ids, entrant.rungs, strict=True)
    found = [at_rung.situation.documents(run_id, rung) for run_id, rung in pairs]
    whole = [item for item in found if item is not None]
    is_whole = len(whole) == len(found) and len({item.fingerprint for item in whole}) == 1
    return whole if is_whole else []


def _spreads_like(entrant: Entrant) -> tuple[object, ...]:
    """What a configuration's spread over seeds depends on."""
    return entrant.spec.model, entrant.spec.adapter.method, entrant.spec.training


STRATEGY = SearchKind(leave_when_beaten)
