"""Compares the values of one axis, each at its best configuration among settings that all values were tried with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lorabench.analysis.candidates import CorpusGroup, model_labels, settings_of
from lorabench.analysis.comparisons import compared, correct, oriented, seed_limit, show_difference
from lorabench.analysis.findings import AxisFindings, Comparison, Level, Setting, Verdict
from lorabench.analysis.pairing import Measured, Pairing
from lorabench.analysis.tried import edges_by_rank
from lorabench.analysis.validation import ValidationRun
from lorabench.core.formatting import figure, listed, setting
from lorabench.records.columns import AXES
from lorabench.records.schema import Status

_CHANGES_YARDSTICK = {"context_length", "precision"}
_OPTIMISATION = frozenset({"learning_rate", "schedule", "warmup_ratio", "decay_ratio", "weight_decay", "max_grad_norm"})
_TUNED_WITH = {
    "method": frozenset(key for key, axis in AXES.items() if axis.is_in("adapter") and key != "method") | _OPTIMISATION,
    "target_modules": frozenset({"rank", "alpha"}),
}
"""Axis -> axes that mean something else for its values, so that each value brings its own."""


@dataclass(frozen=True)
class _Design:
    """What was tried for each value of an axis, results or not, by the rest of the settings."""

    representatives: Mapping[Setting, Measured | None]
    num_candidates: Mapping[Setting, int]
    num_rates: Mapping[Setting, int]
    """Learning rates among the candidates."""
    num_failed: Mapping[Setting, int]
    stopped: tuple[Setting, ...]
    """Values without a result of which a search stopped runs early."""
    common: tuple[Mapping[str, Setting], ...]
    """The rests that every compared value was tried with."""
    left_out: tuple[Setting, ...]
    """Values that share no setting with the others."""


@dataclass
class AxisPairs:
    """The values of one axis for one model and corpus, paired, before the correction over all of them."""

    axis: str
    model: str | None
    group: CorpusGroup
    design: _Design
    pairs: list[tuple[Setting, Setting, Pairing]] = field(default_factory=list)


def pair_values(axis: str, group: CorpusGroup, model: str | None) -> AxisPairs | None:
    """Every two values of an axis, paired; None where fewer than two were tried for this model (None: all models)."""
    runs = [*group.runs, *group.unfinished]
    labels = model_labels(runs)
    named = [(run, settings_of(run.spec, labels[run.spec.model, run.spec.model_revision])) for run in runs]
    tried = [(run, values) for run, values in named if model is None or values["model"] == model]
    tried = [(run, values) for run, values in tried if values[axis] is not None]
    if len({values[axis] for _, values in tried}) < 2:
        return None
    design = _design(axis, group, tried)
    paired = AxisPairs(axis, model, group, design)
    present = [(value, item) for value, item in design.representatives.items() if item is not None]
    for (first, one), (second, two) in itertools.combinations(present, 2):
        paired.pairs.append((first, second, group.pairs.difference(one.key, two.key)))
    return paired


def _design(axis: str, group: CorpusGroup, tried: Sequence[tuple[ValidationRun, dict[str, Setting]]]) -> _Design:
    ignored = {axis, *_TUNED_WITH.get(axis, ())}
    rests: dict[tuple[Setting, ...], set[Setting]] = {}
    for _, values in tried:
        rests.setdefault(_rest(values, ignored), set()).add(values[axis])
    widest = max(rests.values(), key=lambda found: (len(found), sorted(map(repr, found))))
    kept = widest if len(widest) > 1 else set()
    common = {rest for rest, found in rests.items() if kept and kept <= found}
    every = sorted({values[axis] for _, values in tried}, key=_order)
    choices: dict[Setting, list[Measured]] = {value: [] for value in every}
    for item in group.candidates:
        value = item.shown.settings[axis]
        if value in choices and _rest(item.shown.settings, ignored) in common:
            choices[value].append(item)
    failed = dict.fromkeys(every, 0)
    for run, values in tried:
        failed[values[axis]] += run.has_failed and not run.goes_on
    names = [name for name in AXES if name not in ignored]
    representatives = {value: choices[value][0] if choices[value] and value in kept else None for value in every}
    stopped = {values[axis] for run, values in tried if run.status is Status.STOPPED_EARLY}
    return _Design(
        representatives,
        {value: len(choices[value]) for value in every},
        {value: len({item.shown.settings["learning_rate"] for item in choices[value]}) for value in every},
        failed,
        tuple(value for value in every if value in stopped and representatives[value] is None),
        tuple(dict(zip(names, rest, strict=True)) for rest in sorted(common, key=repr)),
        tuple(value for value in every if value not in kept),
    )


def _rest(values: Mapping[str, Setting], ignored: set[str]) -> tuple[Setting, ...]:
    return tuple(values[name] for name in AXES if name not in ignored)


def _order(value: Setting) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if isinstance(value, int | float) else 0.0, str(value)


def judge_axes(axes: Sequence[AxisPairs]) -> list[AxisFindings]:
    """Verdicts for one family of comparisons: every pair of every model and corpus counts in the correction."""
    corrections = iter(correct([pairing.difference for axis in axes for _, _, pairing in axis.pairs]))
    return [
        _findings(
            axis,
            tuple(
                compared(setting(first), setting(second), pairing, next(corrections))
                for first, second, pairing in axis.pairs
            ),
        )
        for axis in axes
    ]


def _findings(paired: AxisPairs, comparisons: tuple[Comparison, ...]) -> AxisFindings:
    design, axis = paired.design, paired.axis
    present = {setting(value): item for value, item in design.representatives.items() if item is not None}
    ordered = sorted(present, key=lambda name: present[name].estimate)
    tied = _tied(ordered, comparisons)
    levels = tuple(
        Level(
            value=value,
            shown=setting(value),
            candidate=None if item is None else item.key,
            bits_per_byte=None if item is None else item.shown.bits_per_byte,
            num_candidates=design.num_candidates[value],
            is_tied_best=setting(value) in tied,
        )
        for value, item in design.representatives.items()
    )
    is_answered = any(
        item.verdict is not Verdict.NOT_COMPARED and ordered[0] in (item.first, item.second) for item in comparisons
    )
    return AxisFindings(
        axis=axis,
        title=AXES[axis].title,
        model=paired.model,
        corpus=paired.group.label,
        levels=levels,
        comparisons=comparisons,
        is_answered=is_answered,
        claim=_claim(paired, ordered, tied, comparisons) if is_answered else _no_answer(paired, comparisons),
        caveats=_caveats(paired, present),
    )


def _tied(ordered: Sequence[str], comparisons: Sequence[Comparison]) -> set[str]:
    """The lowest, and everything that is not told apart from it."""
    if not ordered:
        return set()
    beaten = {item.second for item in comparisons if item.first == ordered[0] and item.verdict is Verdict.LOWER}
    beaten |= {item.first for item in comparisons if item.second == ordered[0] and item.verdict is Verdict.HIGHER}
    return set(ordered) - beaten


def _claim(paired: AxisPairs, ordered: Sequence[str], tied: set[str], comparisons: Sequence[Comparison]) -> str:
    title = AXES[paired.axis].title
    where = f"{paired.model} on {paired.group.label}" if paired.model else paired.group.label
    lowest = ordered[0]
    rest = [name for name in ordered[1:] if oriented(comparisons, lowest, name) is not None]
    shown = figure(paired.design.representatives[_value(paired, lowest)].shown.bits_per_byte)  # type: ignore[union-attr]
    beaten = [name for name in rest if name not in tied]
    seeds = seed_limit(comparisons)
    if not beaten:
        widest = show_difference(oriented(comparisons, lowest, rest[-1]))
        return f"No detectable difference in {title} for {where}{seeds}: {lowest} against {rest[-1]}, {widest}"
    nearest = f"against {beaten[0]}, {show_difference(oriented(comparisons, lowest, beaten[0]))}"
    if len(tied) == 1:
        return f"Best {title} for {where}{seeds}: {lowest} with {shown} bits per byte; {nearest}"
    others = listed([name for name in ordered[1:] if name in tied])
    return (
        f"No single best {title} for {where}{seeds}: {lowest} is lowest with {shown} bits per byte. "
        f"It cannot be told from {others}. It is lower than {listed(beaten)} ({nearest})"
    )


def _value(paired: AxisPairs, shown: str) -> Setting:
    return next(value for value in paired.design.representatives if setting(value) == shown)


def _no_answer(paired: AxisPairs, comparisons: Sequence[Comparison]) -> str:
    title = AXES[paired.axis].title
    where = f"{paired.model} on {paired.group.label}" if paired.model else paired.group.label
    reasons = [item.reason for item in comparisons if item.verdict is Verdict.NOT_COMPARED]
    if reasons:
        return f"The {title} question cannot be answered for {where}: {reasons[0]}"
    if not paired.design.common:
        return (
            f"The {title} question cannot be answered for {where}: no two values share all other settings. "
            f"So {title} cannot be told apart from what else differed"
        )
    if paired.design.stopped:
        stopped = listed([setting(value) for value in paired.design.stopped])
        return (
            f"The {title} question cannot be answered for {where}: a search stopped early what was tried with {stopped}"
        )
    return f"The {title} question cannot be answered for {where}: fewer than two values have a result"


def _caveats(paired: AxisPairs, present: Mapping[str, Measured]) -> tuple[str, ...]:
    axis, design = paired.axis, paired.design
    found = []
    if design.left_out and design.common:
        shown = listed([setting(value) for value in design.left_out])
        found.append(f"Not compared, since tried with other settings only: {shown}")
    if design.stopped and len(present) > 1:
        shown = listed([setting(value) for value in design.stopped])
        found.append(f"Not compared, since a search stopped it early: {shown}")
    found += _tuning(axis, design)
    if axis == "rank" and any(isinstance(rest["alpha"], float) for rest in design.common):
        found.append("Alpha was a fixed number, so alpha divided by rank changed with the rank")
    if axis in _CHANGES_YARDSTICK:
        found.append(
            f"Each is scored with its own {AXES[axis].title} too, so the difference is one of reading and of training"
        )
    if axis == "train_bytes":
        found.append("Each was trained on another amount of text")
    failed = {setting(value): count for value, count in design.num_failed.items() if count}
    if failed:
        found.append("Runs without a result: " + listed([f"{count} at {name}" for name, count in failed.items()]))
    if axis in {"rank", "learning_rate"}:
        found += edges_by_rank([item.shown for item in paired.group.of_model(paired.model or "")])
    counts = {design.num_candidates[value] for value, item in design.representatives.items() if item is not None}
    if len(counts) > 1:
        found.append("The values were tuned over different numbers of configurations with a result")
    if any(len(item.shown.seeds) == 1 for item in present.values()):
        found.append("One seed: another may order them otherwise")
    return tuple(found)


def _tuning(axis: str, design: _Design) -> list[str]:
    """What each value is at its best of, and where one learning rate may suit one value better than another."""
    common_rates = {rest["learning_rate"] for rest in design.common if "learning_rate" in rest}
    alone = [setting(value) for value, count in design.num_rates.items() if count == 1]
    tuned = max(design.num_candidates.values()) > 1
    title = AXES[axis].title
    if axis == "learning_rate":
        rate = ""
    elif len(common_rates) == 1:
        rate = f"Only one learning rate ({setting(next(iter(common_rates)))}) was tried"
    else:
        rate = f"Only one learning rate was tried with {listed(alone)}" if axis in _TUNED_WITH and alone else ""
    found = [f"{rate}, so the effect of {title} cannot be told from how well it suits each"] if rate else []
    if axis == "rank" and len(common_rates) > 1:
        found.append(f"Each rank at its best of {len(common_rates)} learning rates, which validation chose")
    elif axis in _TUNED_WITH and tuned:
        found.append("Each at its best of the configurations tried with it, which validation chose")
    elif len(design.common) > 1 and not rate:
        found.append(f"Each at its best of {len(design.common)} configurations, which validation chose")
    return found
