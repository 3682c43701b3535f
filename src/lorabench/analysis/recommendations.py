"""What to take, per corpus and over all, and what the data says to try next. Chosen on validation alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lorabench.analysis.best import find_best
from lorabench.analysis.candidates import CorpusGroup, by_configuration, settings_of
from lorabench.analysis.caveats import crossovers, limits, smallest_first
from lorabench.analysis.comparisons import show_difference
from lorabench.analysis.deciding import deciding_steps
from lorabench.analysis.facts import UnfinishedRun
from lorabench.analysis.findings import (
    AxisFindings,
    BestSet,
    Candidate,
    Findings,
    ModelHierarchy,
    Recommendation,
    Setting,
    Verdict,
)
from lorabench.analysis.hierarchy import differences_over_corpora, mean_figure, mean_of_pairings
from lorabench.analysis.pairing import Measured
from lorabench.analysis.statistics import Interval
from lorabench.analysis.tried import ended_without_result, is_unreliable, wider_rates
from lorabench.core.formatting import cost, figure, listed, plural, span
from lorabench.records.schema import RunRecord, Status

FEW_STEPS = 10
"""With fewer a run is advised to be longer, whatever its curve says."""


def recommend(group: CorpusGroup, best: BestSet) -> Recommendation:
    """What to take for one corpus."""
    if best.lowest is None:
        return _nothing(group.label, f"Nothing can be recommended: {best.claim}")
    items = {item.key: item for item in group.candidates}
    chosen = items[best.lowest]
    tied = [items[key] for key in best.tied if key != best.lowest]
    if chosen.shown.gain is not None and chosen.shown.versus_base is not Verdict.LOWER:
        return _stay_with_base(group, chosen, tied)
    at_most = best.cost_at_most.get(best.lowest)
    num_seeds = [item.difference.num_seeds for item in best.comparisons if item.difference is not None]
    num_others, num_stopped, fewest = len(items) - 1, len(group.stopped_early), min(num_seeds, default=0)
    standing = _standing(_Trial([chosen.shown], len(tied), num_others, num_stopped, fewest, at_most, best.is_alone))
    claim = f"For {group.label} take {chosen.shown.label}: {figure(chosen.shown.bits_per_byte)} bits per byte"
    if chosen.shown.gain is not None:
        claim += f", {_below(chosen.shown.gain)}"
    return Recommendation(
        corpus=group.label,
        candidates=(chosen.key,),
        claim=f"{claim}. {standing.sentence}{_ended([chosen.shown])}",
        bits_per_byte=chosen.shown.bits_per_byte,
        gain=chosen.shown.gain,
        is_decided=standing.is_decided,
        alternatives=tuple(item.key for item in smallest_first(tied)),
        caveats=limits([group], [chosen], tied),
        standing=standing.label,
    )


def recommended_run(choice: Recommendation, findings: Findings, records: Sequence[RunRecord]) -> str | None:
    """Of a corpus's recommended configuration the seed that is lowest on validation; None where nothing is taken."""
    if not choice.is_taken:
        return None
    figures = {record.run_id: record.validation.bits_per_byte for record in records if record.validation is not None}
    (key,) = choice.candidates
    return min(findings.candidate(key).run_ids, key=lambda run_id: (figures[run_id], run_id))


def _stay_with_base(group: CorpusGroup, chosen: Measured, tied: Sequence[Measured]) -> Recommendation:
    gain, verdict = chosen.shown.gain, chosen.shown.versus_base
    reason = "worse than its base" if verdict is Verdict.HIGHER else "not detectably better than its base"
    if verdict is Verdict.NOT_COMPARED:
        reason = "not comparable with its base document by document"
    claim = f"Nothing can be recommended for {group.label}: the lowest, {chosen.shown.label}, is {reason}"
    return _nothing(group.label, claim, gain, [chosen, *tied], limits([group], [chosen], tied))


def recommend_overall(groups: Sequence[CorpusGroup], best: Sequence[BestSet]) -> Recommendation | None:
    """One configuration for all corpora; None where there is one corpus only."""
    found = [(group, entry) for group, entry in zip(groups, best, strict=True) if group.candidates]
    if len(found) < 2:
        return None
    groups, best = [group for group, _ in found], [entry for _, entry in found]
    everywhere = by_configuration(groups)
    complete = [items for items in everywhere if len(items) == len(groups)]
    if not complete:
        claim = "No configuration has a result on every corpus, so none can be recommended over all"
        return _nothing(None, claim)
    complete.sort(key=lambda items: (sum(item.estimate for item in items), items[0].shown.label))
    lowest = complete[0]
    subset = find_best(differences_over_corpora(complete, groups))
    tied = [complete[place] for place in subset.members if place]
    losses = crossovers(lowest, groups, best)
    caveats = [
        *losses,
        *limits(groups, lowest, [item for items in tied for item in items]),
    ]
    if partial := len(everywhere) - len(complete):
        caveats.append(f"{plural(partial, 'configuration')} without a result on every corpus: not part of this")
    gain = _mean_gain(lowest, groups)
    if gain is None or not gain.excludes_zero or gain.estimate <= 0:
        return _stay_with_bases(groups, lowest, tied, gain, caveats)
    if worse := [item.shown.corpus for item in lowest if item.shown.versus_base is not Verdict.LOWER]:
        caveats.insert(len(losses), f"No detectable gain over the base on {listed(worse)}")
    shown = [item.shown for item in lowest]
    is_alone = len(complete) > 1 and not tied
    num_seeds = [
        len({*one.shown.seeds} & {*two.shown.seeds})
        for items in complete[1:]
        for one, two in zip(lowest, items, strict=True)
    ]
    at_most, fewest = subset.cost_at_most.get(0), min(num_seeds, default=0)
    num_stopped = len(frozenset().union(*(group.stopped_early for group in groups)))
    where = _by_corpus(lowest, best) if is_alone else ""
    standing = _standing(_Trial(shown, len(tied), len(complete) - 1, num_stopped, fewest, at_most, is_alone, where))
    mean = mean_figure(lowest)
    claim = f"Over all {len(groups)} corpora take {shown[0].label}: {figure(mean)} bits per byte on mean"
    return Recommendation(
        corpus=None,
        candidates=tuple(item.key for item in lowest),
        claim=f"{claim}, {_below(gain)}. {standing.sentence}{_ended(shown)}",
        bits_per_byte=mean,
        gain=gain,
        is_decided=standing.is_decided,
        alternatives=tuple(item.key for item in smallest_first([items[0] for items in tied])),
        caveats=tuple(dict.fromkeys(caveats)),
        standing=standing.label,
    )


def _stay_with_bases(
    groups: Sequence[CorpusGroup],
    lowest: Sequence[Measured],
    tied: Sequence[Sequence[Measured]],
    gain: Interval | None,
    caveats: Sequence[str],
) -> Recommendation:
    reason = "worse than" if gain is not None and gain.excludes_zero else "not detectably better than"
    where = f"over all {len(groups)} corpora: the lowest on mean, {lowest[0].shown.label}"
    claim = f"Nothing can be recommended {where}, is {reason} its base"
    return _nothing(None, claim, gain, [items[0] for items in (lowest, *tied)], caveats)


def _nothing(
    corpus: str | None,
    claim: str,
    gain: Interval | None = None,
    lowest: Sequence[Measured] | None = None,
    caveats: Sequence[str] = (),
) -> Recommendation:
    """No recommendation, and why; with the gain of the lowest where there is one that was not enough."""
    return Recommendation(
        corpus=corpus,
        candidates=(),
        claim=claim if lowest is None else f"{claim}. Base minus adapted: {show_difference(gain)}",
        bits_per_byte=None,
        gain=gain,
        is_decided=False,
        alternatives=tuple(item.key for item in smallest_first(lowest or ())),
        caveats=tuple(dict.fromkeys(caveats)),
    )


def _by_corpus(lowest: Sequence[Measured], best: Sequence[BestSet]) -> str:
    """On how many corpora by themselves the choice is told apart too."""
    alone = sum(entry.is_alone and entry.lowest == item.key for item, entry in zip(lowest, best, strict=True))
    if alone == len(best):
        return ", and on each corpus by itself"
    return f" on mean; on {alone or 'none'} of {len(best)} corpora by itself"


def _ended(chosen: Sequence[Candidate]) -> str:
    """That seeds of the choice gave no result, as a further sentence."""
    ended = {item.corpus: how for item in chosen if (how := ended_without_result(item))}
    if len(chosen) == 1 or not ended:
        return "".join(f". It {how}" for how in ended.values())
    how, *others = dict.fromkeys(ended.values())
    return f". It {how if not others else 'gave no result on some seeds'} of {listed(list(ended))}"


def _mean_gain(items: Sequence[Measured], groups: Sequence[CorpusGroup]) -> Interval | None:
    parts = [group.pairs.gain(item.key) for item, group in zip(items, groups, strict=True)]
    return None if (mean := mean_of_pairings(parts, groups)).difference is None else mean.interval()


def _below(gain: Interval) -> str:
    if gain.low is None or gain.high is None:
        return f"{figure(gain)} below its base ({span(gain)})"
    return f"{figure(gain)} below its base (95 %: {span(gain)})"


@dataclass(frozen=True)
class _Trial:
    """What a choice was compared with, and how that came out."""

    chosen: Sequence[Candidate]
    num_tied: int
    num_others: int
    num_stopped: int
    """Configurations that a search stopped early, so that they are not among the others."""
    num_seeds: int
    """The fewest that the choice shares with another."""
    cost_at_most: float | None
    """Of taking it, in bits per byte."""
    is_alone: bool
    where: str = ""
    """That it is alone, in words that end the sentence."""


@dataclass(frozen=True)
class _Standing:
    """How sure a choice is, in a few words and in a sentence."""

    label: str
    sentence: str
    is_decided: bool = False


def _standing(trial: _Trial) -> _Standing:
    found = _among_finished(trial)
    found = replace(found, sentence=found.sentence + trial.where)
    if not trial.num_stopped:
        return found
    stopped = f"A search stopped {plural(trial.num_stopped, 'other configuration')} early"
    if not trial.num_others:
        return _Standing("all that a search left", f"{stopped} and trained no other to its end")
    return replace(found, label=f"{found.label}, of those finished", sentence=f"{found.sentence}. {stopped}")


def _among_finished(trial: _Trial) -> _Standing:
    if not trial.num_others:
        return _Standing("nothing to compare with", "No other configuration has a result there")
    fewest = min((item.seeds for item in trial.chosen), key=len)
    if not trial.is_alone:
        return _tied(trial, f" on seed {fewest[0]}" if len(fewest) == 1 else "")
    others = f"each of the {trial.num_others} other configurations"
    below = f"t is below {others if trial.num_others > 1 else 'the one other configuration'}"
    if len(fewest) == 1:
        return _Standing(f"lowest, on seed {fewest[0]} only", f"On seed {fewest[0]} only, i{below}")
    if trial.num_seeds < 2:
        return _Standing("lowest, against some on one seed only", f"I{below}, against some on one seed only")
    if unreliable := next((item for item in trial.chosen if is_unreliable(item)), None):
        return _Standing(f"lowest, but {ended_without_result(unreliable)}", f"I{below}")
    return _Standing("the best, beyond chance", f"I{below}", is_decided=True)


def _tied(trial: _Trial, on_seed: str) -> _Standing:
    others = f"{trial.num_tied} of {trial.num_others} other configurations"
    if trial.num_others == 1:
        others = "The one other configuration"
    price = "" if trial.cost_at_most is None else f"; taking it costs at most {cost(trial.cost_at_most)} bits per byte"
    label = "not told from " + plural(trial.num_tied, "other")
    return _Standing(label, f"{others} cannot be told from it{on_seed}{price}")


def unanswered(
    groups: Sequence[CorpusGroup], hierarchy: ModelHierarchy, axes: Sequence[AxisFindings]
) -> tuple[str, ...]:
    """Sentences on what this design leaves open."""
    items = [item for group in groups for item in group.candidates]
    if not items:
        return ("There are no results yet, so nothing can be told",)
    found = [] if hierarchy.is_answered else [hierarchy.claim]
    for axis, name in (("rank", "rank"), ("learning_rate", "learning rate")):
        values = _tried(groups, axis)
        if len(values) == 1:
            value = next(iter(values))
            shown = f"{value:g}" if isinstance(value, float) else value
            found.append(f"Only one {name} was tried ({shown}), so whether another would be better is not known")
    found += [axis.claim for axis in axes if not axis.is_answered]
    stopped = sum(run.status is Status.STOPPED_EARLY for group in groups for run in group.unfinished)
    if stopped:
        found.append(f"{plural(stopped, 'run')} stopped early by a search: they are compared at its rungs alone")
    if once := sorted({item.shown.corpus for item in items if all(len(run.evaluations) == 1 for run in item.runs)}):
        found.append(f"Validation was scored only once a run on {listed(once)}, so training may have been too short")
    seeds = [len(item.shown.seeds) for item in items]
    if max(seeds) == 1:
        found.append("Each configuration was run with one seed, so every verdict holds for that seed alone")
    elif min(seeds) == 1:
        found.append("Some configurations were run with one seed; verdicts on them hold for that seed alone")
    confounded = _rank_confounded(items)
    return tuple(dict.fromkeys([*found, *confounded]))


def _tried(groups: Sequence[CorpusGroup], axis: str) -> set[Setting]:
    """The values that an axis was tried with, whether they gave a result or were stopped early."""
    runs = (run for group in groups for run in (*group.runs, *group.unfinished))
    return {settings_of(run.spec, run.spec.model)[axis] for run in runs} - {None}


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
    hierarchy: ModelHierarchy,
    unfinished: Sequence[UnfinishedRun],
) -> tuple[str, ...]:
    """What the data suggests to do next."""
    items = [item.shown for group in groups for item in group.candidates]
    if not items:
        return ("Finish at least one run: give the same `lorabench run` command again",)
    found = []
    if max(len(item.seeds) for item in items) == 1:
        found.append("Add seeds (`seeds: [0, 1, 2]`), so that a difference can be told from one seed's luck")
    found += deciding_steps(groups, best)
    tied = zip(groups, best, strict=True)
    found += wider_rates([item.shown for group, one in tied for item in group.candidates if item.key in one.tied])
    lowest = [group.candidates[0].shown for group in groups if group.candidates]
    barely = {item.corpus: item.trained.steps for item in lowest if item.trained and item.trained.steps < FEW_STEPS}
    if barely:
        where, longest = listed([*barely]), plural(max(barely.values()), "step")
        found.insert(0, f"Train longer (`training.train_bytes`) on {where}: after {longest} little is known")
    if short := [item.corpus for item in lowest if item.still_falls is not None and item.corpus not in barely]:
        found.append(f"Train longer (`training.train_bytes`) on {listed(short)}: validation still falls at the end")
    if len(_tried(groups, "learning_rate")) == 1:
        found.append("Try several learning rates: ranks and models are compared fairly only at the best rate of each")
    if len(_tried(groups, "model")) == 1:
        found.append("Try a second base model: with one, none can be called best")
    elif not hierarchy.is_answered:
        found.append("Run every model with the same settings on the same corpora, so that the models can be compared")
    if failed := sum(not run.is_interrupted for run in unfinished):
        found.append(f"{plural(failed, 'run')} without a result: see the failures, mend them, use `--retry failed`")
    return tuple(found)
