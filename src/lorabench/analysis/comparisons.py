"""Compares: the candidates of a corpus, the values of an axis at their best, models over corpora.

Only validation results come in (by type). A claim is made where the corrected comparison supports it; everything that
stands in the way of one becomes a sentence.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lorabench.analysis.candidates import CorpusGroup, model_labels, settings_of
from lorabench.analysis.findings import AxisFindings, BestSet, Comparison, Level, Setting, Verdict
from lorabench.analysis.pairing import Measured, Pairing
from lorabench.analysis.statistics import Floats, Interval, holm, stack
from lorabench.analysis.validation import ValidationRun
from lorabench.formatting import bits, setting, signed_bits
from lorabench.record.columns import AXES

SIGNIFICANCE = 0.05
_CHANGES_YARDSTICK = {"context_length", "precision"}
_TUNED_WITH = {"method": frozenset({"rank", "alpha", "dropout", "target_modules"})}
"""Axis -> axes that mean something else for its values, so that each value brings its own."""


def verdict_of(difference: float, adjusted_p: float) -> Verdict:
    """What a corrected comparison came to."""
    if not adjusted_p < SIGNIFICANCE:
        return Verdict.NO_DETECTABLE_DIFFERENCE
    return Verdict.LOWER if difference < 0 else Verdict.HIGHER


def compared(first: str, second: str, pairing: Pairing, adjusted_p: float | None) -> Comparison:
    """One comparison as reported."""
    if pairing.difference is None or adjusted_p is None:
        return Comparison(first, second, Verdict.NOT_COMPARED, reason=pairing.reason)
    verdict = verdict_of(float(pairing.difference.estimate), adjusted_p)
    return Comparison(first, second, verdict, pairing.interval, adjusted_p, pairing.reason)


def p_values(pairings: Sequence[Pairing]) -> Floats:
    """Uncorrected, of those that could be compared."""
    differences = [pairing.difference for pairing in pairings if pairing.difference is not None]
    return stack(differences).p_value()


def show_difference(interval: Interval | None) -> str:
    """`−0.0123 bits per byte (95 % interval −0.0150 to −0.0096)`."""
    if interval is None:
        return "an unknown difference"
    if interval.low is None or interval.high is None:
        return f"{signed_bits(interval.estimate)} bits per byte (no interval: {interval.note})"
    ends = f"95 % interval {signed_bits(interval.low)} to {signed_bits(interval.high)}"
    return f"{signed_bits(interval.estimate)} bits per byte ({ends})"


def best_sets(groups: Sequence[CorpusGroup]) -> list[BestSet]:
    """For each corpus the best candidate, or those that cannot be told from the lowest.

    The lowest is picked after looking, so every pair that could have been picked counts in the correction.
    """
    num_pairs = sum(len(group.candidates) * (len(group.candidates) - 1) // 2 for group in groups)
    return [_best_set(group, num_pairs) for group in groups]


def _best_set(group: CorpusGroup, num_pairs: int) -> BestSet:
    if not group.candidates:
        return BestSet(None, (), (), f"No run on {group.label} has a result")
    lowest, *others = group.candidates
    pairings = [group.pairs.difference(lowest.key, item.key) for item in others]
    adjusted = iter(p_values(pairings) * num_pairs if any(item.difference for item in pairings) else ())
    comparisons = tuple(
        compared(lowest.key, item.key, pairing, None if pairing.difference is None else min(1.0, float(next(adjusted))))
        for item, pairing in zip(others, pairings, strict=True)
    )
    tied = (lowest.key, *(item.second for item in comparisons if item.verdict is not Verdict.LOWER))
    return BestSet(lowest.key, tied, comparisons, _best_claim(group, lowest, comparisons, len(tied)))


def _best_claim(group: CorpusGroup, lowest: Measured, comparisons: Sequence[Comparison], num_tied: int) -> str:
    figure = f"{bits(lowest.estimate)} bits per byte"
    if not comparisons:
        return f"Only one configuration has a result on {group.label} ({lowest.shown.label}: {figure}); it beat nothing"
    incomparable = [item for item in comparisons if item.verdict is Verdict.NOT_COMPARED]
    left_out = f"; {len(incomparable)} could not be compared: {incomparable[0].reason}" if incomparable else ""
    labels = {item.key: item.shown.label for item in group.candidates}
    seeds = _seed_limit(comparisons)
    if len(incomparable) == len(comparisons):
        return (
            f"No best on {group.label}: nothing could be compared with the lowest, {lowest.shown.label} ({figure})"
            + (f": {incomparable[0].reason}")
        )
    if num_tied == 1:
        nearest = comparisons[0]
        against = f"against the next, {labels[nearest.second]}, {show_difference(nearest.difference)}"
        return f"Best on {group.label}{seeds}: {lowest.shown.label} with {figure}; {against}"
    num_beaten = len(comparisons) + 1 - num_tied
    beaten = f" and below the other {num_beaten}" if num_beaten else ""
    return (
        f"No single best on {group.label}{seeds}: {lowest.shown.label} is lowest with {figure}{beaten}, but "
        f"{_others(num_tied - 1 - len(incomparable))} cannot be told from it{left_out}"
    )


def _others(count: int) -> str:
    return "1 other configuration" if count == 1 else f"{count} other configurations"


def _seed_limit(comparisons: Sequence[Comparison]) -> str:
    reasons = {item.reason for item in comparisons if item.verdict is not Verdict.NOT_COMPARED and item.reason}
    return f" ({sorted(reasons)[0]}, another seed may order them otherwise)" if reasons else ""


@dataclass(frozen=True)
class _Design:
    """What was tried for each value of an axis, results or not, by the rest of the settings."""

    representatives: Mapping[Setting, Measured | None]
    num_candidates: Mapping[Setting, int]
    num_failed: Mapping[Setting, int]
    common: tuple[Mapping[str, Setting], ...]
    """The rests that every compared value was tried with."""
    left_out: tuple[Setting, ...]
    """Values that share no setting with the others."""


@dataclass
class Question:
    """One axis for one model and corpus, before its family is corrected."""

    axis: str
    model: str | None
    group: CorpusGroup
    design: _Design
    pairs: list[tuple[Setting, Setting, Pairing]] = field(default_factory=list)


def ask(axis: str, group: CorpusGroup, model: str | None) -> Question | None:
    """The question of an axis, if more than one of its values was tried for this model (None: all) on this corpus."""
    runs = [*group.runs, *group.unfinished]
    labels = model_labels(runs)
    named = [(run, settings_of(run.spec, labels[run.spec.model, run.spec.model_revision])) for run in runs]
    tried = [(run, values) for run, values in named if model is None or values["model"] == model]
    tried = [(run, values) for run, values in tried if values[axis] is not None]
    if len({values[axis] for _, values in tried}) < 2:
        return None
    design = _design(axis, group, tried)
    question = Question(axis, model, group, design)
    present = [(value, item) for value, item in design.representatives.items() if item is not None]
    for (first, one), (second, two) in itertools.combinations(present, 2):
        question.pairs.append((first, second, group.pairs.difference(one.key, two.key)))
    return question


def _design(axis: str, group: CorpusGroup, tried: Sequence[tuple[ValidationRun, dict[str, Setting]]]) -> _Design:
    ignored = {axis} | _TUNED_WITH.get(axis, frozenset())
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
        failed[values[axis]] += not run.has_result
    names = [name for name in AXES if name not in ignored]
    return _Design(
        {value: choices[value][0] if choices[value] and value in kept else None for value in every},
        {value: len(choices[value]) for value in every},
        failed,
        tuple(dict(zip(names, rest, strict=True)) for rest in sorted(common, key=repr)),
        tuple(value for value in every if value not in kept),
    )


def _rest(values: Mapping[str, Setting], ignored: set[str]) -> tuple[Setting, ...]:
    return tuple(values[name] for name in AXES if name not in ignored)


def _order(value: Setting) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if isinstance(value, int | float) else 0.0, str(value)


def answer(questions: Sequence[Question]) -> list[AxisFindings]:
    """Verdicts for one family of questions: every pair of every model and corpus counts in the correction."""
    pairings = [pairing for question in questions for _, _, pairing in question.pairs]
    usable = [pairing for pairing in pairings if pairing.difference is not None]
    corrected = iter(holm(p_values(usable)) if usable else ())
    return [
        _answer(
            question,
            tuple(
                compared(
                    setting(first),
                    setting(second),
                    pairing,
                    None if pairing.difference is None else float(next(corrected)),
                )
                for first, second, pairing in question.pairs
            ),
        )
        for question in questions
    ]


def _answer(question: Question, comparisons: tuple[Comparison, ...]) -> AxisFindings:
    design, axis = question.design, question.axis
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
            num_failed_runs=design.num_failed[value],
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
        model=question.model,
        corpus=question.group.label,
        levels=levels,
        comparisons=comparisons,
        is_answered=is_answered,
        claim=_claim(question, ordered, tied, comparisons) if is_answered else _no_answer(question, comparisons),
        caveats=_caveats(question, present),
    )


def _tied(ordered: Sequence[str], comparisons: Sequence[Comparison]) -> set[str]:
    """The lowest, and everything that is not told apart from it."""
    if not ordered:
        return set()
    beaten = {item.second for item in comparisons if item.first == ordered[0] and item.verdict is Verdict.LOWER}
    beaten |= {item.first for item in comparisons if item.second == ordered[0] and item.verdict is Verdict.HIGHER}
    return set(ordered) - beaten


def oriented(comparisons: Sequence[Comparison], lowest: str, other: str) -> Interval | None:
    """The interval of lowest minus other, however the pair was written."""
    for item in comparisons:
        if (item.first, item.second) == (lowest, other):
            return item.difference
        if (item.first, item.second) == (other, lowest) and item.difference is not None:
            found = item.difference
            low, high = (None, None) if found.low is None or found.high is None else (-found.high, -found.low)
            return Interval(-found.estimate, low, high, found.num_documents, found.num_seeds, found.note)
    return None


def _claim(question: Question, ordered: Sequence[str], tied: set[str], comparisons: Sequence[Comparison]) -> str:
    title = AXES[question.axis].title
    where = f"{question.model} on {question.group.label}" if question.model else question.group.label
    lowest = ordered[0]
    rest = [name for name in ordered[1:] if oriented(comparisons, lowest, name) is not None]
    figure = bits(question.design.representatives[_value(question, lowest)].estimate)  # type: ignore[union-attr]
    beaten = [name for name in rest if name not in tied]
    seeds = _seed_limit(comparisons)
    if not beaten:
        widest = show_difference(oriented(comparisons, lowest, rest[-1]))
        return f"No detectable difference in {title} for {where}{seeds}: {lowest} against {rest[-1]} is {widest}"
    nearest = f"against {beaten[0]}, {show_difference(oriented(comparisons, lowest, beaten[0]))}"
    if len(tied) == 1:
        return f"Best {title} for {where}{seeds}: {lowest} with {figure} bits per byte; {nearest}"
    others = ", ".join(name for name in rest if name in tied)
    return (
        f"No single best {title} for {where}{seeds}: {lowest} is lowest with {figure} bits per byte and cannot be told "
        f"from {others}; it is lower than {', '.join(beaten)} ({nearest})"
    )


def _value(question: Question, shown: str) -> Setting:
    return next(value for value in question.design.representatives if setting(value) == shown)


def _no_answer(question: Question, comparisons: Sequence[Comparison]) -> str:
    title = AXES[question.axis].title
    where = f"{question.model} on {question.group.label}" if question.model else question.group.label
    reasons = [item.reason for item in comparisons if item.verdict is Verdict.NOT_COMPARED]
    if reasons:
        return f"The {title} question cannot be answered for {where}: {reasons[0]}"
    if not question.design.common:
        return (
            f"The {title} question cannot be answered for {where}: no two values were tried with the same other "
            f"settings, so {title} cannot be told apart from what else differed"
        )
    return f"The {title} question cannot be answered for {where}: fewer than two values have a result"


def _caveats(question: Question, present: Mapping[str, Measured]) -> tuple[str, ...]:
    axis, design = question.axis, question.design
    rates = {rest["learning_rate"] for rest in design.common if "learning_rate" in rest}
    found = []
    if design.left_out and design.common:
        shown = ", ".join(setting(value) for value in design.left_out)
        found.append(f"Not compared, since tried with other settings only: {shown}")
    if axis != "learning_rate" and len(rates) == 1:
        found.append(
            f"Only one learning rate ({setting(next(iter(rates)))}) was tried, so the effect of the "
            f"{AXES[axis].title} cannot be told from how well that rate suits each"
        )
    elif axis == "rank" and len(rates) > 1:
        found.append(f"Each rank at its best of {len(rates)} learning rates, which validation chose")
    elif len(design.common) > 1:
        found.append(f"Each at its best of {len(design.common)} configurations, which validation chose")
    if axis == "rank" and any(isinstance(rest["alpha"], float) for rest in design.common):
        found.append("Alpha was a fixed number, so alpha divided by rank changed with the rank")
    if axis in _CHANGES_YARDSTICK:
        found.append(
            f"Each is scored with its own {AXES[axis].title} too, so the difference includes what that changes in "
            "reading, not only in training"
        )
    if axis == "train_bytes":
        found.append("Each was trained on another amount of text")
    failed = {setting(value): count for value, count in design.num_failed.items() if count}
    if failed:
        found.append("Runs without a result: " + ", ".join(f"{count} at {name}" for name, count in failed.items()))
    if axis == "learning_rate" and len(present) > 1:
        ordered = [value for value, item in design.representatives.items() if item is not None]
        best = min(ordered, key=lambda value: present[setting(value)].estimate)
        if best in (ordered[0], ordered[-1]):
            end = "largest" if best == ordered[-1] else "smallest"
            found.append(f"The lowest figure is at the {end} rate tried; the best may lie beyond it")
    counts = {design.num_candidates[value] for value, item in design.representatives.items() if item is not None}
    if len(counts) > 1:
        found.append("The values were tuned over different numbers of configurations with a result")
    if any(len(item.shown.seeds) == 1 for item in present.values()):
        found.append("One seed: another seed may order them otherwise")
    return tuple(found)
