"""What runs could have told apart, and what would decide between those that they could not: text, seeds or training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lorabench.analysis.candidates import CorpusGroup, gather
from lorabench.analysis.detectable import (
    NEGLIGIBLE,
    PRACTICAL,
    Errors,
    Reach,
    Split,
    Spread,
    detectable,
    find_reach,
    median_of_variance,
    split_of,
)
from lorabench.analysis.findings import BestSet, Verdict
from lorabench.analysis.pairing import Measured
from lorabench.analysis.rules import LENGTH_EXPONENT, factor_for
from lorabench.analysis.spread import Detectable, MeasuredSpread, Spreads
from lorabench.analysis.statistics import Floats, Uncertain
from lorabench.analysis.validation import DocumentReader, read_validation_runs
from lorabench.core.formatting import number, rough_size, setting
from lorabench.records.columns import AXES
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore


def what_could_be_detected(group: CorpusGroup, best: BestSet) -> Detectable | None:
    """On one corpus, between the lowest and those that it is not told from, or else all others; None without pairs."""
    places = {item.key: place for place, item in enumerate(group.candidates)}
    if best.lowest is None or len(places) < 2:
        return None
    differences = group.pairs.matrix
    others = [key for key in best.tied if key != best.lowest] or [key for key in places if key != best.lowest]
    errors = [_errors(differences.take((places[best.lowest], places[key]))) for key in others]
    known = sorted((item for item in errors if math.isfinite(item.variance)), key=lambda item: item.variance)
    if not known:
        return None
    middle = known[len(known) // 2]
    pair, alone = detectable(middle), detectable(middle, len(places))
    if pair is None or alone is None:
        return None
    return Detectable(pair, alone, middle.document_share, _measure_spread(group, differences))


def _errors(found: Uncertain) -> Errors:
    """Of a single difference."""
    documents, seeds = float(found.document_freedom), max(1.0, float(found.seed_freedom))
    return Errors(
        float(found.document_variance) / median_of_variance(documents),
        documents,
        float(found.seed_variance) / median_of_variance(seeds),
        seeds,
    )


def measure_spreads(records: Sequence[RunRecord], store: RecordStore) -> Spreads:
    """From records."""
    groups = gather(read_validation_runs(records, DocumentReader(store)))[0]
    groups.sort(key=lambda group: len(group.candidates))
    specs = [group.runs[0].spec for group in groups]
    return {
        (spec.dataset, spec.dataset_revision): _measure_spread(group, group.pairs.matrix)
        for spec, group in zip(specs, groups, strict=True)
    }


def _measure_spread(group: CorpusGroup, differences: Uncertain) -> MeasuredSpread:
    """For plans: per byte, so that it holds for other documents too."""
    is_pair = np.triu(np.isfinite(differences.document_variance), 1)
    num_bytes = next((item.num_bytes for item in group.candidates if item.num_bytes is not None), None)
    if num_bytes is None or not is_pair.any():
        return MeasuredSpread(None, None)
    models = np.array([item.shown.model for item in group.candidates])
    rates = np.array([float(item.shown.settings["learning_rate"] or 0.0) for item in group.candidates])
    unit = float((num_bytes**LENGTH_EXPONENT).sum() / num_bytes.sum() ** 2)
    unit *= median_of_variance(float(differences.document_freedom[is_pair][0]))
    dispersion = differences.document_variance / unit
    is_same = models[:, None] == models[None, :]
    num_seeds = min(len(item.shown.seeds) for item in group.candidates)
    by_rate = {}
    for rate in np.unique(rates) if num_seeds > 1 else ():
        has_rate = is_pair & is_same & ((rates[:, None] == rate) | (rates[None, :] == rate))
        within = has_rate & (rates[:, None] == rates[None, :])
        if (chosen := within if within.any() else has_rate).any():
            freedom = max(1.0, float(differences.seed_freedom[chosen].mean()))
            variance = float(differences.seed_variance[chosen].mean()) / median_of_variance(freedom)
            by_rate[float(rate)] = variance * num_seeds
    return MeasuredSpread(_median(dispersion[is_pair & is_same]), _median(dispersion[is_pair & ~is_same]), by_rate)


def _median(values: Floats) -> float | None:
    return float(np.median(values)) if len(values) else None


def deciding_steps(groups: Sequence[CorpusGroup], best: Sequence[BestSet]) -> list[str]:
    """One sentence for each corpus where something is not told apart: the cheapest step that would decide it."""
    steps, costs = [], []
    for group, entry in zip(groups, best, strict=True):
        if not any(item.shown.versus_base is Verdict.LOWER for item in group.candidates):
            steps += [_for_gain(group, group.candidates[0])] if group.candidates else []
        elif len(entry.tied) > 1:
            cost = max(entry.cost_at_most.values(), default=math.inf)
            if cost <= PRACTICAL:
                costs.append(f"{group.label} (by at most {number(cost, 2)})")
            elif step := _for_tie(group, entry):
                steps.append(step)
    if costs:
        steps.append(f"Which of the tied is taken does not matter on {', '.join(costs)}: take the smallest")
    return steps


def _for_tie(group: CorpusGroup, best: BestSet) -> str | None:
    """For the nearest of the tied that is worth telling apart from the lowest."""
    places = {item.key: place for place, item in enumerate(group.candidates)}
    differences, lowest = group.pairs.matrix, group.candidates[places[best.tied[0]]]
    for key in best.tied[1:]:
        other = group.candidates[places[key]]
        apart = other.estimate - lowest.estimate
        errors = _errors(differences.take((places[lowest.key], places[key])))
        if apart < NEGLIGIBLE or not math.isfinite(errors.document_freedom):
            continue
        seeds = len(set(lowest.shown.seeds) & set(other.shown.seeds))
        reach = _reach(group, errors, seeds, apart, factor_for(len(best.tied)))
        what = f"tell {_told_apart(lowest, other)} on {group.label} ({number(apart, 2)} apart)"
        return _sentence(group, reach, errors, seeds, len(best.tied), what)
    return f"On {group.label} the lowest of the tied are less than {NEGLIGIBLE} apart, which no practical design tells"


def _for_gain(group: CorpusGroup, lowest: Measured) -> str:
    """Where nothing is detectably below its base."""
    pairing = group.pairs.gain(lowest.key)
    if pairing.difference is None:
        return f"On {group.label} no gain over the base can be judged: {pairing.reason}"
    gain = float(pairing.difference.estimate)
    if gain <= 0:
        return f"On {group.label} nothing is below its base: try lower learning rates, or more training text"
    if gain < NEGLIGIBLE:
        return f"On {group.label} the gain over the base is only {number(gain, 2)}: try more training text"
    errors = _errors(pairing.difference)
    reach = _reach(group, errors, len(pairing.seeds), gain, len(group.candidates))
    what = f"tell the gain on {group.label} ({number(gain, 2)}) from chance"
    return _sentence(group, reach, errors, len(pairing.seeds), 1, what)


def _reach(group: CorpusGroup, errors: Errors, num_seeds: int, apart: float, factor: float) -> Reach | None:
    """What would tell them apart; None where the size of the split is not known."""
    split, scored = _split(group), _scored_bytes(group)
    if split is None:
        return None
    unit = split.errors(scored, Spread(1.0, 0.0), num_seeds)
    spread = Spread(errors.document_variance / unit.document_variance, errors.seed_variance * num_seeds)
    per_seed = errors.seed_freedom / max(1, num_seeds - 1)
    reach = find_reach(split, scored, spread, num_seeds, per_seed, apart, factor)
    if reach.is_reached:  # and yet not told apart, by chance or since few documents tell most
        text = round(2.0 * scored) if 2.0 * scored <= split.num_bytes else None
        seeds = num_seeds + 1 if errors.document_share < 0.5 else None
        reach = replace(reach, is_reached=False, num_bytes=text, num_seeds=seeds)
    return reach


def _split(group: CorpusGroup) -> Split | None:
    facts = group.runs[0].dataset
    if facts is None or facts.num_bytes.get("validation", 0) < 1:
        return None
    num_documents = facts.num_documents.get("validation", 0)
    return split_of(facts.num_bytes["validation"], num_documents if num_documents > 0 else None)


def _scored_bytes(group: CorpusGroup) -> int:
    scores = group.runs[0].validation
    assert scores is not None
    return scores.num_bytes


def _sentence(group: CorpusGroup, reach: Reach | None, errors: Errors, num_seeds: int, num_tied: int, what: str) -> str:
    share = errors.document_share
    if reach is None:
        more = "More validation text" if share >= 0.5 else "More seeds"
        return f"{more} may {what}"
    if reach.needs_both:
        return f"{rough_size(reach.num_bytes or 0)} of validation text and {reach.num_seeds} seeds would {what}"
    text = None if reach.num_bytes is None else _seconds_of_text(group, reach.num_bytes, num_tied * num_seeds)
    seeds = None
    if reach.num_seeds is not None:
        seeds = _seconds_of_seeds(group, num_tied * (reach.num_seeds - num_seeds))
    if text is not None and (seeds is None or text <= seeds):
        now = rough_size(_scored_bytes(group))
        cause = f"; {100 * share:.0f} % of the variance is from documents" if num_seeds > 1 else ""
        return f"{rough_size(reach.num_bytes or 0)} of validation text instead of {now} would {what}{cause}"
    if reach.num_seeds is not None:
        cause = f"{100 * (1 - share):.0f} % of the variance is from seeds"
        return f"{reach.num_seeds} seeds instead of {num_seeds} would {what}; {cause}"
    neither = "Not even all validation text" if num_seeds == 1 else "Neither all validation text nor many more seeds"
    return f"{neither} would {what}: more training text may move them further"


def _seconds_of_text(group: CorpusGroup, num_bytes: int, num_runs: int) -> float:
    """Another budget makes other runs: all are trained again."""
    more = num_bytes / _scored_bytes(group) - 1.0
    return num_runs * statistics.median(total + more * scoring for total, scoring in _seconds(group))


def _seconds_of_seeds(group: CorpusGroup, num_runs: int) -> float:
    return num_runs * statistics.median(total for total, _ in _seconds(group))


def _seconds(group: CorpusGroup) -> list[tuple[float, float]]:
    """What runs took, and scoring in them; where nothing was recorded, a third of the time is scoring."""
    known = [(run.speed.total_seconds, run.speed.evaluation_seconds) for run in group.runs if run.speed]
    return known or [(3.0, 1.0)]


def _told_apart(first: Measured, second: Measured) -> str:
    """`rank 8 from 16`; nothing longer where they differ in more than one setting."""
    one, two = first.shown.settings, second.shown.settings
    axes = [axis for axis in AXES if one[axis] != two[axis]]
    if len(axes) != 1:
        return "the lowest from the nearest of the tied"
    return f"{AXES[axes[0]].title.lower()} {setting(one[axes[0]])} from {setting(two[axes[0]])}"
