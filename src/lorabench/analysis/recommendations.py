"""What to take, per corpus and over all, and what the data says to try next. Chosen on validation alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorabench.analysis.best import find_best
from lorabench.analysis.candidates import CorpusGroup, hardware_of
from lorabench.analysis.comparisons import show_difference
from lorabench.analysis.findings import AxisFindings, BestSet, ModelHierarchy, Recommendation, UnfinishedRun, Verdict
from lorabench.analysis.hierarchy import contamination, differences_over_corpora, mean_figure, mean_of_pairings
from lorabench.analysis.pairing import Measured
from lorabench.analysis.statistics import Interval
from lorabench.core.formatting import bits


def recommend(group: CorpusGroup, best: BestSet) -> Recommendation:
    """What to take for one corpus."""
    if best.lowest is None:
        return Recommendation(group.label, (), f"Nothing can be recommended: {best.claim}", None, None, False, (), ())
    items = {item.key: item for item in group.candidates}
    chosen = items[best.lowest]
    tied = [items[key] for key in best.tied if key != best.lowest]
    if chosen.shown.gain is not None and chosen.shown.versus_base is not Verdict.LOWER:
        return _stay_with_base(group, chosen, tied)
    gain = "" if chosen.shown.gain is None else f", {_gain(chosen.shown.gain)}"
    claim = f"For {group.label} take {chosen.shown.label}: {bits(chosen.estimate)} bits per byte{gain}"
    return Recommendation(
        corpus=group.label,
        candidates=(chosen.key,),
        claim=claim + _standing(best, len(tied), len(group.candidates)),
        bits_per_byte=chosen.shown.bits_per_byte,
        gain=chosen.shown.gain,
        is_decided=best.is_decided,
        alternatives=tuple(item.key for item in _smallest_first(tied)),
        caveats=_caveats([group], [chosen], tied),
    )


def _stay_with_base(group: CorpusGroup, chosen: Measured, tied: Sequence[Measured]) -> Recommendation:
    gain, verdict = chosen.shown.gain, chosen.shown.versus_base
    reason = "worse than its base" if verdict is Verdict.HIGHER else "not detectably better than its base"
    if verdict is Verdict.NOT_COMPARED:
        reason = "not comparable with its base document by document"
    return Recommendation(
        corpus=group.label,
        candidates=(),
        claim=f"Nothing can be recommended for {group.label}: the lowest, {chosen.shown.label}, is {reason} "
        f"(base minus adapted: {show_difference(gain)})",
        bits_per_byte=None,
        gain=gain,
        is_decided=False,
        alternatives=tuple(item.key for item in _smallest_first([chosen, *tied])),
        caveats=_caveats([group], [chosen], tied),
    )


def recommend_overall(groups: Sequence[CorpusGroup]) -> Recommendation | None:
    """One configuration for all corpora; None where there is one corpus only."""
    groups = [group for group in groups if group.candidates]
    if len(groups) < 2:
        return None
    everywhere: dict[str, list[Measured]] = {}
    for group in groups:
        for item in group.candidates:
            everywhere.setdefault(repr(sorted(item.shown.settings.items())), []).append(item)
    complete = [items for items in everywhere.values() if len(items) == len(groups)]
    if not complete:
        claim = "No configuration has a result on every corpus, so none can be recommended over all"
        return Recommendation(None, (), claim, None, None, False, (), ())
    complete.sort(key=lambda items: (sum(item.estimate for item in items), items[0].shown.label))
    lowest, *others = complete
    subset = find_best(differences_over_corpora(complete, groups))
    tied = [complete[place] for place in subset.members if place]
    is_decided = bool(others) and not tied and len(lowest[0].shown.seeds) > 1
    gain, figure = _mean_gain(lowest, groups), mean_figure(lowest)
    keys = tuple(item.key for item in lowest)
    claim = (
        f"Over all {len(groups)} corpora take {lowest[0].shown.label}: {bits(figure.estimate)} bits per byte on mean"
    )
    if gain is not None:
        claim += f", {_gain(gain)}"
    worse = [item.shown.corpus for item in lowest if item.shown.versus_base is not Verdict.LOWER]
    if gain is None or not gain.excludes_zero or gain.estimate <= 0:
        keys, is_decided = (), False
        claim = f"Nothing can be recommended over all corpora: the lowest on mean, {lowest[0].shown.label}, is not " + (
            f"detectably better than its base (base minus adapted: {show_difference(gain)})"
        )
    elif is_decided:
        claim += f"; it is below each of the {len(others)} other configurations tried on every corpus"
    elif tied:
        claim += f"; {len(tied)} of the {len(others)} other configurations cannot be told from it"
    else:
        claim += "; no other configuration was tried on every corpus"
    caveats = list(_caveats(groups, lowest, [item for items in tied for item in items]))
    if worse and keys:
        caveats.insert(0, "No detectable gain over the base on " + ", ".join(worse))
    return Recommendation(
        corpus=None,
        candidates=keys,
        claim=claim,
        bits_per_byte=figure if keys else None,
        gain=gain,
        is_decided=is_decided,
        alternatives=tuple(item.key for item in _smallest_first([items[0] for items in tied])),
        caveats=tuple(caveats),
    )


def _mean_gain(items: Sequence[Measured], groups: Sequence[CorpusGroup]) -> Interval | None:
    parts = [group.pairs.gain(item.key) for item, group in zip(items, groups, strict=True)]
    return None if (mean := mean_of_pairings(parts, groups)).difference is None else mean.interval()


def _gain(gain: Interval) -> str:
    if gain.low is None or gain.high is None:
        return f"{bits(gain.estimate)} below its base (no interval: {gain.note})"
    return f"{bits(gain.estimate)} below its base (95 % interval {bits(gain.low)} to {bits(gain.high)})"


def _standing(best: BestSet, num_tied: int, num_candidates: int) -> str:
    if num_candidates == 1:
        return "; nothing else was tried there"
    if best.is_decided:
        return f"; it is below each of the {num_candidates - 1} other configurations"
    return f"; {num_tied} of the {num_candidates - 1} other configurations cannot be told from it"


def _smallest_first(items: Iterable[Measured]) -> list[Measured]:
    return sorted(items, key=lambda item: (item.shown.cost.trainable_parameters or 0, item.estimate))


def _caveats(groups: Sequence[CorpusGroup], chosen: Sequence[Measured], tied: Sequence[Measured]) -> tuple[str, ...]:
    """What limits a recommendation, in words."""
    found = []
    fewest = min(len(item.shown.seeds) for item in chosen)
    if fewest == 1:
        found.append("One seed: the interval holds for that seed alone, and another may order things otherwise")
    deviations = [item.shown.seed_deviation for item in chosen if item.shown.seed_deviation is not None]
    if fewest > 1 and deviations:
        found.append(f"{fewest} seeds, which spread by {bits(max(deviations))} bits per byte (standard deviation)")
    found += [item for item in contamination(groups) if any(item.startswith(f"{m.shown.model} ") for m in chosen)]
    for group in groups:
        run = group.runs[0]
        if run.dataset is not None and run.dataset.synthetic:
            found.append(f"{group.label} is synthetic text: what is best there need not be best on text people wrote")
        if run.dataset is not None and not run.dataset.pinned:
            found.append(f"{group.label} is not pinned to a revision: another download may be other text")
    found += sorted(
        {
            f"{run.spec.model} is not pinned to a revision: another download may be other weights"
            for item in chosen
            for run in item.runs
            if run.model is not None and not run.model.pinned
        }
    )
    contexts = {item.shown.settings["context_length"] for item in (*chosen, *tied)}
    precisions = {item.shown.settings["precision"] for item in (*chosen, *tied)}
    if len(contexts) > 1:
        found.append("Context lengths differ among the candidates, and each is scored with its own")
    if len(precisions) > 1:
        found.append("Precisions differ among the candidates, and each is scored with its own")
    hardware = sorted({hardware_of(run.environment) for group in groups for run in group.runs})
    if len(hardware) > 1:
        found.append("Run on several kinds of hardware: timings are compared within one only")
    smallest = _smallest_first([*chosen, *tied])[0]
    if smallest not in chosen:
        found.append(f"{smallest.shown.label} cannot be told from it and is the smallest of those")
    return tuple(dict.fromkeys(found))


def unanswered(
    groups: Sequence[CorpusGroup], hierarchy: ModelHierarchy, axes: Sequence[AxisFindings]
) -> tuple[str, ...]:
    """Sentences on what this design leaves open."""
    items = [item for group in groups for item in group.candidates]
    if not items:
        return ("There are no results yet, so nothing can be told",)
    found = [] if hierarchy.is_answered else [hierarchy.claim]
    for axis, name in (("rank", "rank"), ("learning_rate", "learning rate")):
        values = {item.shown.settings[axis] for item in items} - {None}
        if len(values) == 1:
            value = next(iter(values))
            shown = f"{value:g}" if isinstance(value, float) else value
            found.append(f"Only one {name} was tried ({shown}), so whether another would be better is not known")
    found += [axis.claim for axis in axes if not axis.is_answered]
    seeds = [len(item.shown.seeds) for item in items]
    if max(seeds) == 1:
        found.append("Each configuration was run with one seed, so every verdict holds for that seed alone")
    elif min(seeds) == 1:
        found.append("Some configurations were run with one seed; verdicts on them hold for that seed alone")
    confounded = _rank_confounded(items)
    return tuple(dict.fromkeys([*found, *confounded]))


def _rank_confounded(items: Sequence[Measured]) -> list[str]:
    ranks: dict[str, set[object]] = {}
    for item in items:
        ranks.setdefault(item.shown.model, set()).add(item.shown.settings["rank"])
    if len(ranks) > 1 and all(len(found) == 1 for found in ranks.values()) and len(set().union(*ranks.values())) > 1:
        return ["Each model was run at one rank, and not the same: model and rank cannot be told apart"]
    return []


def next_steps(
    groups: Sequence[CorpusGroup],
    best: Sequence[BestSet],
    axes: Sequence[AxisFindings],
    hierarchy: ModelHierarchy,
    unfinished: Sequence[UnfinishedRun],
) -> tuple[str, ...]:
    """What the data suggests to do next."""
    items = [item for group in groups for item in group.candidates]
    if not items:
        return ("Finish at least one run: give the same `lorabench run` command again",)
    found = []
    ties = sum(len(entry.tied) > 1 for entry in best)
    if max(len(item.shown.seeds) for item in items) == 1:
        found.append("Add seeds (`seeds: [0, 1, 2]`), so that a difference can be told from one seed's luck")
    if ties:
        found.append(
            f"On {ties} of {len(best)} corpora nothing is told apart as best: more validation text "
            "(`evaluation.validation_bytes`) and more seeds narrow the intervals"
        )
    edges = sorted({axis.model or "" for axis in axes for caveat in axis.caveats if "may lie beyond" in caveat})
    if edges:
        found.append(f"Widen the learning rates for {', '.join(edges)}: the lowest figure is at the end of those tried")
    if len({item.shown.settings["learning_rate"] for item in items}) == 1:
        found.append("Try several learning rates: ranks and models are compared fairly only at the best rate of each")
    models = {item.shown.model for item in items}
    if len(models) == 1:
        found.append("Try a second base model: with one, none can be called best")
    elif not hierarchy.is_answered:
        found.append("Run every model with the same settings on the same corpora, so that the models can be compared")
    worse = [group.label for group in groups if not any(m.shown.versus_base is Verdict.LOWER for m in group.candidates)]
    if worse:
        found.append(f"Nothing is detectably better than its base on {', '.join(worse)}: try more training text")
    if unfinished:
        found.append(f"{len(unfinished)} runs have no result: see the failures, mend them and use `--retry failed`")
    return tuple(found)
