"""Which form of a run to ship: what each loses, whether that can be told from nothing, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorabench.analysis.answers import score_interval
from lorabench.analysis.statistics import Interval, Uncertain, compare_pair, holm_factors
from lorabench.core.formatting import Estimated, number, size, with_interval
from lorabench.records.answers import AnswerResults
from lorabench.records.deployment import Constraints, DeploymentRecord
from lorabench.records.documents import DocumentResults
from lorabench.records.measured import Answers
from lorabench.records.schema import Status


@dataclass(frozen=True)
class FormStanding:
    """A measured form beside the unquantised adapter, on validation."""

    record: DeploymentRecord
    difference: Interval
    """Form minus adapter in bits per byte, paired by document; above zero is a loss."""
    gain_kept: Interval | None
    """Share of the adapter's gain over its base; None where the adapter has no gain that can be told from nothing."""
    loses: bool
    """Whether the loss can be told from nothing, at 5 % over all forms together."""
    keeps_gain: bool
    """Whether it is better than the base, with an interval."""


@dataclass(frozen=True)
class FormAnswer:
    """What a form's answers are worth beside the unquantised adapter's, paired by question; nothing is chosen by it."""

    split: str
    metric: str
    adapter: float
    form: float
    difference: Interval
    """Form minus adapter; below zero is a loss."""
    num_questions: int


def read_form_answers(answers: Answers, results: AnswerResults) -> list[FormAnswer]:
    """Of one split, by metric."""
    return [
        FormAnswer(
            split=answers.split,
            metric=name,
            adapter=figure.base,
            form=figure.adapted,
            difference=score_interval(results.scores[name][None], results.base_scores[name][None], (0,)),
            num_questions=answers.num_examples,
        )
        for name, figure in answers.metrics.items()
    ]


@dataclass(frozen=True)
class Choice:
    """What to ship, in sentences."""

    verdict: str
    reasons: tuple[str, ...]
    standings: tuple[FormStanding, ...]
    """From the smallest loss to the largest."""
    pick: str | None
    """The form to ship; None where none keeps what was gained, or none meets the constraints."""


def choose_form(
    measured: Sequence[tuple[DeploymentRecord, DocumentResults]],
    run: DocumentResults,
    constraints: Constraints | None = None,
) -> Choice:
    """Compare completed forms with the run's own adapter, `run`, on its validation documents, and choose.

    Losses are told from nothing at 5 % over all forms (Holm). Forms scored on other documents are left out.
    """
    standings = _standings([(record, found) for record, found in measured if found.fingerprint == run.fingerprint], run)
    limits = constraints or Constraints()
    asked = f", asked for {limits}" if str(limits) else ""
    if not standings:
        return Choice("No form was measured", (), (), None)
    if run.base_nll is None or not _gain(run).interval(len(run.nll), 1).excludes_zero or _gain(run).estimate >= 0:
        reason = "The adapter itself has no gain over its base that can be told from nothing, so no form can keep one"
        return Choice("No form keeps a gain", (reason,), standings, None)
    keeping = [standing for standing in standings if standing.keeps_gain]
    if not keeping:
        return Choice("No form keeps the gain", ("None is better than the base by more than chance",), standings, None)
    fitting = [standing for standing in keeping if limits.broken_by(standing.record) is None]
    if not fitting:
        verdict = f"No form that keeps the gain meets what was asked for: {limits}"
        return Choice(verdict, _left_out(keeping, limits), standings, None)
    lossless = [standing for standing in fitting if not standing.loses]
    smallest = min(lossless or fitting[:1], key=lambda s: (s.record.disk_bytes or math.inf, s.difference.estimate))
    fastest = max(lossless or fitting, key=lambda s: s.record.median("decode_tokens_per_second") or 0.0)
    verdict = _verdict(smallest, fastest, bool(lossless)) + asked
    reasons = (*_left_out(keeping, limits), *_steps_down(smallest, standings))
    return Choice(verdict, reasons, standings, smallest.record.form)


def _left_out(standings: Sequence[FormStanding], limits: Constraints) -> tuple[str, ...]:
    """Which of the forms are none to take, because of what was asked for."""
    broken = [(standing.record.form, limits.broken_by(standing.record)) for standing in standings]
    return tuple(f"{form} is left out: {reason}" for form, reason in broken if reason is not None)


def _verdict(smallest: FormStanding, fastest: FormStanding, is_lossless: bool) -> str:
    loss = "loses nothing that can be told from chance" if is_lossless else "loses least of those that fit"
    first = f"Ship {smallest.record.form}: it {loss}, at {size(smallest.record.disk_bytes)}"
    if fastest is smallest:
        return f"{first}, and writes fastest ({number(smallest.record.median('decode_tokens_per_second'), 3)} tokens/s)"
    rate = number(fastest.record.median("decode_tokens_per_second"), 3)
    return f"{first}; {fastest.record.form} writes fastest ({rate} tokens/s)"


def _steps_down(pick: FormStanding, standings: Sequence[FormStanding]) -> tuple[str, ...]:
    """What each step down in size from the pick costs; none to a form where another is smaller and loses less."""
    smaller: list[FormStanding] = []
    size_so_far = pick.record.disk_bytes or 0
    for standing in standings:  # the lowest first, so that each is worth naming only where it is the smallest yet
        if (standing.record.disk_bytes or math.inf) < size_so_far:
            smaller.append(standing)
            size_so_far = standing.record.disk_bytes or 0
    return tuple(
        f"A step down to {s.record.form} ({size(s.record.disk_bytes)}) costs {_cost(s.difference)} bits per byte"
        for s in sorted(smaller, key=lambda s: -(s.record.disk_bytes or 0))
    )


def _cost(difference: Estimated) -> str:
    return "{} ({})".format(*with_interval(difference, is_signed=True))


def _standings(
    measured: Sequence[tuple[DeploymentRecord, DocumentResults]], run: DocumentResults
) -> tuple[FormStanding, ...]:
    done = [(record, found) for record, found in measured if record.status is Status.COMPLETED]
    pairs = [compare_pair(found.nll[None], run.nll[None], run.num_bytes) for _, found in done]
    factors = [float(factor) for factor in holm_factors([float(pair.p_value()) for pair in pairs])]
    standings = []
    for (record, found), pair, factor in zip(done, pairs, factors, strict=True):
        wide = pair.interval(len(run.nll), 1, factor=float(factor))
        standings.append(
            FormStanding(
                record=record,
                difference=pair.interval(len(run.nll), 1, "on this seed"),
                gain_kept=_gain_kept(found, run),
                loses=wide.low is not None and wide.low > 0,
                keeps_gain=_keeps_gain(found, run),
            )
        )
    return tuple(sorted(standings, key=lambda standing: standing.difference.estimate))


def _gain(run: DocumentResults) -> Uncertain:
    """Adapter minus base."""
    assert run.base_nll is not None
    return compare_pair(run.nll[None], run.base_nll[None], run.num_bytes)


def _keeps_gain(found: DocumentResults, run: DocumentResults) -> bool:
    if run.base_nll is None:
        return False
    over_base = compare_pair(found.nll[None], run.base_nll[None], run.num_bytes).interval(len(run.nll), 1)
    return over_base.high is not None and over_base.high < 0


def _gain_kept(found: DocumentResults, run: DocumentResults) -> Interval | None:
    """(base - form) / (base - adapter), with the interval of a ratio of sums over the same documents."""
    if run.base_nll is None:
        return None
    gain = _gain(run)
    if gain.estimate >= 0 or not gain.interval(len(run.nll), 1).excludes_zero:
        return None
    share = float(np.sum(run.base_nll - found.nll) / np.sum(run.base_nll - run.nll))
    left = (run.base_nll - found.nll)[None]
    expected = share * (run.base_nll - run.nll)[None]
    spread = compare_pair(left, expected, run.num_bytes).interval(len(run.nll), 1)
    if spread.low is None or spread.high is None:
        return Interval(share, None, None, len(run.nll), 1, spread.note)
    half = (spread.high - spread.low) / 2.0 / abs(float(gain.estimate))
    return Interval(share, share - half, share + half, len(run.nll), 1, "on this seed")
