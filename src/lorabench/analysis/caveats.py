"""What limits a recommendation, in sentences, the gravest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lorabench.analysis.candidates import CorpusGroup, hardware_of
from lorabench.analysis.comparisons import oriented
from lorabench.analysis.findings import BestSet, Candidate, Comparison, Verdict
from lorabench.analysis.hierarchy import contamination
from lorabench.analysis.pairing import Measured
from lorabench.analysis.tried import diverged_beside, ended_without_result
from lorabench.core.formatting import bits, figure_and_span, listed, number, setting

MUCH_SEEN = 0.2
"""Share of eight-word sequences from which text is warned of; prose has some hundredths."""


def limits(groups: Sequence[CorpusGroup], chosen: Sequence[Measured], tied: Sequence[Measured]) -> tuple[str, ...]:
    """Of what was chosen on each of these corpora; `tied` are all that cannot be told from it there."""
    smallest = smallest_first([*chosen, *tied])[0]
    smaller = [] if smallest in chosen else [f"{smallest.shown.label} is the smallest of those not told from it"]
    return tuple(
        dict.fromkeys(
            [
                *_templates(groups, chosen),
                *_tried(groups, chosen),
                *_seeds(chosen),
                *_yardsticks(groups),
                *(item for item in contamination(groups) if any(item.startswith(f"{m.shown.model} ") for m in chosen)),
                *_texts(groups, chosen),
                *_hardware(groups),
                *smaller,
            ]
        )
    )


def smallest_first(items: Iterable[Measured]) -> list[Measured]:
    """By trainable parameters, then by figure."""
    return sorted(items, key=lambda item: (item.shown.cost.trainable_parameters or 0, item.estimate))


def _tried(groups: Sequence[CorpusGroup], chosen: Sequence[Measured]) -> list[str]:
    """Seeds without a result, rates that diverge, rates at an end of those tried, training that was too short."""
    found = []
    for group, item in zip(groups, chosen, strict=True):
        if ended := ended_without_result(item.shown):
            found.append(f"On {group.label} it {ended}, and its figure is that of the others")
    for group, item in zip(groups, chosen, strict=True):
        if beside := diverged_beside(item.shown, group.runs, group.unfinished):
            found.append(f"{beside} on {group.label}")
    for edge in ("largest", "smallest"):
        if where := [group.label for group, item in zip(groups, chosen, strict=True) if item.shown.rate_edge == edge]:
            rate = setting(chosen[0].shown.settings["learning_rate"])
            found.append(f"Its rate {rate} is the {edge} tried on {listed(where)}; the best may lie beyond it")
    falls = {
        group.label: item.shown.still_falls
        for group, item in zip(groups, chosen, strict=True)
        if item.shown.still_falls is not None
    }
    if falls:
        found.append(
            f"Training was too short on {listed(list(falls))}: validation still fell by "
            f"{number(max(falls.values()), 2)} bits per byte in its last quarter"
        )
    return found


def _seeds(chosen: Sequence[Measured]) -> list[str]:
    fewest = min((item.shown.seeds for item in chosen), key=len)
    if len(fewest) == 1:
        return [f"One seed: all of this holds on seed {fewest[0]} only, and another may order things otherwise"]
    deviations = [item.shown.seed_deviation for item in chosen if item.shown.seed_deviation is not None]
    return [f"{len(fewest)} seeds, which spread by {bits(max(deviations))} bits per byte (standard deviation)"]


def _yardsticks(groups: Sequence[CorpusGroup]) -> list[str]:
    """What differs among all that was compared, tied or not."""
    settings = [item.shown.settings for group in groups for item in group.candidates]
    return [
        f"{name} differ among the candidates, and each is scored with its own"
        for name, axis in (("Context lengths", "context_length"), ("Precisions", "precision"))
        if len({values[axis] for values in settings}) > 1
    ]


def _templates(groups: Sequence[CorpusGroup], chosen: Sequence[Measured]) -> list[str]:
    """Corpora whose validation text stands in the training text in good part: what is gained there is no language."""
    return [
        f"{100.0 * (item.shown.validation_seen or 0.0):.0f}\u00a0% of the eight-word sequences of {group.label}'s "
        "validation text occur in its training text: templates, which are learned at once, may be most of the gain"
        for group, item in zip(groups, chosen, strict=True)
        if has_templates(item.shown)
    ]


def has_templates(candidate: Candidate) -> bool:
    """Whether its validation text stands in its training text in good part."""
    return candidate.validation_seen is not None and candidate.validation_seen >= MUCH_SEEN


def _texts(groups: Sequence[CorpusGroup], chosen: Sequence[Measured]) -> list[str]:
    facts = [(group.label, group.runs[0].dataset) for group in groups]
    found = []
    if synthetic := [label for label, facts in facts if facts is not None and facts.synthetic]:
        found.append(f"{listed(synthetic)}: synthetic text; what is best there need not be so on what people wrote")
    if unpinned := [label for label, facts in facts if facts is not None and not facts.pinned]:
        found.append(f"{listed(unpinned)}: not pinned to a revision; another download may be other text")
    runs = [run for item in chosen for run in item.runs]
    if weights := sorted({run.spec.model for run in runs if run.model is not None and not run.model.pinned}):
        found.append(f"{listed(weights)}: not pinned to a revision; another download may be other weights")
    return found


def _hardware(groups: Sequence[CorpusGroup]) -> list[str]:
    kinds = {hardware_of(run.environment) for group in groups for run in group.runs}
    return ["Run on several kinds of hardware: timings are compared within one only"] if len(kinds) > 1 else []


def crossovers(chosen: Sequence[Measured], groups: Sequence[CorpusGroup], best: Sequence[BestSet]) -> list[str]:
    """Corpora on which the choice over all is not the lowest: by whom and by how much, or that it is no difference."""
    found, undetected = [], []
    for item, group, entry in zip(chosen, groups, best, strict=True):
        names = {other.key: other.shown for other in group.candidates}
        against = next((pair for pair in entry.comparisons if pair.second == item.key), None)
        if against is None:
            continue
        if against.verdict is Verdict.NOT_THE_BEST:
            found.append(_crossover(group.label, names, against))
        else:
            undetected.append(group.label)
    if undetected:
        found.append(f"On {listed(undetected)} another is lower, but by no detectable difference")
    return found


def _crossover(corpus: str, names: Mapping[str, Candidate], against: Comparison) -> str:
    lower = f"On {corpus} {names[against.first].label} is lower than it"
    size = oriented([against], against.second, against.first)
    return lower if size is None else f"{lower}, by {figure_and_span(size)}"
