"""Which base model is best, each at its best configuration on validation, among settings all were tried with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lorabench.analysis.axes import judge_axes, pair_values
from lorabench.analysis.candidates import CorpusGroup
from lorabench.analysis.comparisons import compared, correct, oriented, show_difference
from lorabench.analysis.findings import AxisFindings, Comparison, ModelHierarchy, ModelRank, Verdict
from lorabench.analysis.pairing import MISSING_DOCUMENTS, Measured, Pairing, seed_note
from lorabench.analysis.statistics import Interval, Uncertain, mean_of
from lorabench.core.formatting import figure, listed
from lorabench.models.catalog import was_trained_on


def model_hierarchy(groups: Sequence[CorpusGroup]) -> ModelHierarchy:
    """Models compared on each corpus, and over the corpora that they share."""
    models = sorted({run.spec.model for group in groups for run in (*group.runs, *group.unfinished)})
    paired = [pairs for group in groups if (pairs := pair_values("model", group, None)) is not None]
    per_corpus = tuple(judge_axes(paired))
    if not paired:
        return ModelHierarchy(False, _too_few(models, groups), (), (), (), (), ())
    items = {
        (axis.corpus, level.shown): pairs.design.representatives[level.value]
        for pairs, axis in zip(paired, per_corpus, strict=True)
        for level in axis.levels
    }
    answered = [axis.corpus for axis in per_corpus if axis.is_answered]
    names = sorted({model for (corpus, model), item in items.items() if item is not None and corpus in answered})
    shared = tuple(corpus for corpus in answered if all(items.get((corpus, model)) for model in names))
    caveats = _caveats(groups, per_corpus, answered, shared)
    if len(names) < 2 or not shared:
        claim = "The models cannot be ranked over all: " + (
            "no corpus has a comparable result of every model" if names else per_corpus[0].claim
        )
        return ModelHierarchy(False, claim, (), (), (), per_corpus, caveats)
    chosen = {model: [_present(items[corpus, model]) for corpus in shared] for model in names}
    by_label = {group.label: group for group in groups}
    comparisons = _overall(chosen, [by_label[corpus] for corpus in shared])
    ranking = _ranking(chosen, comparisons, per_corpus)
    is_answered = any(item.verdict is not Verdict.NOT_COMPARED for item in comparisons)
    return ModelHierarchy(
        is_answered, _claim(ranking, comparisons, shared), shared, ranking, comparisons, per_corpus, caveats
    )


def _present(item: Measured | None) -> Measured:
    assert item is not None
    return item


def _too_few(models: Sequence[str], groups: Sequence[CorpusGroup]) -> str:
    if not models:
        return "There are no results yet, so there is no best model"
    if len(models) == 1:
        return f"Only one model was tried ({models[0]}), so there is no best model: nothing was compared"
    return (
        f"{len(models)} models were tried, but never two on the same documents of one corpus. "
        "So there is no best model: what one scored cannot be told from what it was scored on"
    )


def _overall(chosen: dict[str, list[Measured]], groups: Sequence[CorpusGroup]) -> tuple[Comparison, ...]:
    """Mean differences over the shared corpora, all pairs of models, Holm-corrected."""
    pairs = list(itertools.combinations(chosen, 2))
    pairings = [over_corpora(chosen[first], chosen[second], groups) for first, second in pairs]
    corrections = correct([item.difference for item in pairings])
    return tuple(
        compared(first, second, pairing, correction)
        for (first, second), pairing, correction in zip(pairs, pairings, corrections, strict=True)
    )


def over_corpora(first: Sequence[Measured], second: Sequence[Measured], groups: Sequence[CorpusGroup]) -> Pairing:
    """The unweighted mean over corpora of first minus second, or why there is none."""
    parts = [group.pairs.difference(one.key, two.key) for one, two, group in zip(first, second, groups, strict=True)]
    return mean_of_pairings(parts, groups)


def mean_of_pairings(parts: Sequence[Pairing], groups: Sequence[CorpusGroup]) -> Pairing:
    """The unweighted mean of one comparison on several corpora, or why there is none."""
    found = [part.difference for part in parts if part.difference is not None]
    if len(found) < len(parts):
        missing = next(index for index, part in enumerate(parts) if part.difference is None)
        return Pairing(None, reason=f"{parts[missing].reason} on {groups[missing].label}")
    fewest = min((part.seeds for part in parts), key=len)
    return Pairing(mean_of(found), fewest, sum(part.num_documents for part in parts), seed_note(fewest))


def differences_over_corpora(items: Sequence[Sequence[Measured]], groups: Sequence[CorpusGroup]) -> Uncertain:
    """The unweighted mean over corpora of every configuration minus every other, [M, M]; items [M, corpora]."""
    parts = []
    for index, group in enumerate(groups):
        place = {item.key: number for number, item in enumerate(group.candidates)}
        chosen = [place[row[index].key] for row in items]
        parts.append(group.pairs.matrix.take(np.ix_(chosen, chosen)))
    return mean_of(parts)


def mean_figure(items: Sequence[Measured]) -> Interval:
    """The unweighted mean over corpora of a figure."""
    figures = [item.figure for item in items if item.figure is not None]
    num_documents = sum(item.shown.bits_per_byte.num_documents for item in items)
    fewest = min((item.shown.seeds for item in items), key=len)
    if len(figures) < len(items):
        mean = float(np.mean([item.estimate for item in items]))
        return Interval(mean, None, None, num_documents, len(fewest), MISSING_DOCUMENTS)
    return mean_of(figures).interval(num_documents, len(fewest), seed_note(fewest))


def _ranking(
    chosen: dict[str, list[Measured]], comparisons: Sequence[Comparison], per_corpus: Sequence[AxisFindings]
) -> tuple[ModelRank, ...]:
    means = {model: mean_figure(items) for model, items in chosen.items()}
    ordered = sorted(chosen, key=lambda model: means[model].estimate)
    beaten = {item.second for item in comparisons if item.first == ordered[0] and item.verdict is Verdict.LOWER}
    beaten |= {item.first for item in comparisons if item.second == ordered[0] and item.verdict is Verdict.HIGHER}
    alone = [
        [level.shown for level in axis.levels if level.is_tied_best]
        for axis in per_corpus
        if axis.is_answered and sum(level.candidate is not None for level in axis.levels) > 1
    ]
    return tuple(ModelRank(model, means[model], model not in beaten, alone.count([model])) for model in ordered)


def _claim(ranking: Sequence[ModelRank], comparisons: Sequence[Comparison], corpora: Sequence[str]) -> str:
    lowest, *rest = ranking
    where = f"over {len(corpora)} corpora" if len(corpora) > 1 else f"on {corpora[0]}, the one corpus they share"
    reasons = sorted({item.reason for item in comparisons if item.reason})
    limit = f" ({reasons[0]})" if reasons else ""
    tied = [item.model for item in rest if item.is_tied_best]
    if all(item.verdict is Verdict.NOT_COMPARED for item in comparisons):
        return f"The models cannot be told apart {where}: {reasons[0] if reasons else 'they could not be compared'}"
    mean = f"{figure(lowest.mean_bits_per_byte)} bits per byte at its best settings" + " on each" * (len(corpora) > 1)
    if not tied:
        against = show_difference(oriented(comparisons, lowest.model, rest[0].model))
        return f"Best model {where}{limit}: {lowest.model} with {mean}. Against {rest[0].model}, {against}"
    if len(tied) == len(rest):
        against = show_difference(oriented(comparisons, lowest.model, rest[-1].model))
        return (
            f"No detectable difference between the models {where}{limit}. "
            f"Each at its best settings, {lowest.model} against {rest[-1].model} is {against}"
        )
    return (
        f"No single best model {where}{limit}: {lowest.model} is lowest with {mean}. "
        f"It cannot be told from {listed(tied)}"
    )


def _caveats(
    groups: Sequence[CorpusGroup],
    per_corpus: Sequence[AxisFindings],
    answered: Sequence[str],
    shared: Sequence[str],
) -> tuple[str, ...]:
    found = [axis.claim for axis in per_corpus if not axis.is_answered]
    compared_on = {axis.corpus for axis in per_corpus}
    single = [group.label for group in groups if group.label not in compared_on and group.candidates]
    if single:
        found.append("Tried with one model only, so not part of this: " + listed(single))
    not_shared = [corpus for corpus in answered if corpus not in shared]
    if not_shared:
        found.append("Not tried with every model, so not part of the overall mean: " + listed(not_shared))
    found += sorted({caveat for axis in per_corpus if axis.is_answered for caveat in axis.caveats})
    found += contamination(groups)
    return tuple(dict.fromkeys(found))


def contamination(groups: Sequence[CorpusGroup]) -> list[str]:
    """Models that may have been trained on what they are scored on."""
    return sorted(
        {
            f"{run.spec.model} was trained on text of {group.label} before, which flatters it there"
            for group in groups
            for run in group.runs
            if run.dataset is not None and was_trained_on(run.spec.model, run.dataset.contaminates)
        }
    )
