"""What is read first, alike in summary, page and terminal: what to take, the models, the corpora, what is open.

Every sentence has at most 30 words; figures have the digits that their intervals support. Texts are plain, some of them
other people's: whoever shows them escapes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lorabench.analysis.candidates import contrast
from lorabench.analysis.caveats import has_templates
from lorabench.analysis.findings import (
    AxisFindings,
    BestSet,
    Candidate,
    Findings,
    ModelHierarchy,
    ModelRank,
    Recommendation,
    TestReading,
    Trained,
    Verdict,
)
from lorabench.analysis.statistics import Interval
from lorabench.core.formatting import NONE, alike, cost, figure, relative_gain, span, training

MAX_MODELS = 5
MAX_CORPORA = 9
FEW_CORPORA = 4
MAX_SENTENCES = 3
"""Of each kind; the others stand further below."""
MAX_WORDS_LISTED = 14


@dataclass(frozen=True)
class Standing:
    """How far a choice can be trusted, in a few words."""

    words: str
    is_decided: bool = False
    """Told apart from all others, with more than one seed."""


@dataclass(frozen=True)
class ModelLine:
    """A model's place."""

    model: str
    figure: str
    span: str
    standing: Standing


@dataclass(frozen=True)
class CorpusLine:
    """What to take for a corpus."""

    corpus: str
    choice: str
    figure: str
    span: str
    gain: str
    test: str
    standing: Standing


@dataclass(frozen=True)
class Headline:
    """The first screen."""

    verdict: str
    standing: Standing
    reasons: tuple[str, ...]
    """What the choice gains, what else may be the best, and what limits it."""
    model_claims: tuple[str, ...]
    models: tuple[ModelLine, ...]
    corpora: tuple[CorpusLine, ...]
    settings: tuple[str, ...]
    """Which settings matter: in how many cases one value was told apart from another."""
    unknown: tuple[str, ...]
    steps: tuple[str, ...]

    @property
    def choice_length(self) -> int:
        """Characters that a choice has in a table of corpora: where these are few, lines may break."""
        return 120 if len(self.corpora) <= FEW_CORPORA else 44


def headline_of(findings: Findings) -> Headline:
    """From everything that was found; lists are as long as they are, and whoever shows them cuts them."""
    chosen = findings.overall or (findings.recommendations[0] if len(findings.recommendations) == 1 else None)
    return Headline(
        verdict=_verdict(findings, chosen) if chosen else "No run has a result yet",
        standing=Standing(chosen.standing, chosen.is_decided) if chosen else Standing("no recommendation"),
        reasons=(*_searches(findings), *(_reasons(findings, chosen) if chosen else ())),
        model_claims=sentences(findings.hierarchy.claim),
        models=tuple(_model_line(findings.hierarchy, item) for item in findings.hierarchy.ranking),
        corpora=tuple(_corpus_line(findings, item) for item in findings.recommendations),
        settings=tuple(setting_sentences(findings)),
        unknown=tuple(sentence for sentence in findings.unanswered if sentence != findings.hierarchy.claim),
        steps=findings.next_steps,
    )


def sentences(claim: str) -> tuple[str, ...]:
    """A claim's sentences and its parts between semicolons, each a sentence of its own without its stop."""
    return tuple(_begun(part) for part in re.split(r"; |\. (?=[A-Z])", claim) if part)


def setting_sentences(findings: Findings) -> list[str]:
    """For each setting that was varied, in how many cases (a model on a corpus) it makes a difference."""
    by_title: dict[str, list[AxisFindings]] = {}
    for axis in (*findings.ranks, *findings.learning_rates, *findings.other_axes):
        if axis.is_answered:
            by_title.setdefault(axis.title, []).append(axis)
    return [_setting_sentence(title, axes) for title, axes in by_title.items()]


def _setting_sentence(title: str, axes: Sequence[AxisFindings]) -> str:
    verdicts = {Verdict.LOWER, Verdict.HIGHER, Verdict.NOT_THE_BEST}
    num = sum(any(item.verdict in verdicts for item in axis.comparisons) for axis in axes)
    cases = "the one case" if len(axes) == 1 else f"{num or 'any'} of {len(axes)} cases (a model on a corpus)"
    return _begun(f"{title} makes {'a' if num else 'no'} detectable difference in {cases}")


def _begun(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def tied_costs(findings: Findings, best: BestSet) -> list[tuple[Candidate, str]]:
    """The members of a set that may hold the best, lowest first, each with what it costs at most."""
    items = [findings.candidate(key) for key in best.tied]
    return [(item, cost_words(best.cost_at_most.get(item.key))) for item in items]


def cost_words(at_most: float | None) -> str:
    """`at most 0.020 bits per byte`; empty where it is not known."""
    return "" if at_most is None else f"at most {cost(at_most)} bits per byte"


def shown_on_test(reading: TestReading | None, candidate: Candidate) -> str:
    """What test said, without an interval of its own to the digits of the figure on validation."""
    said = reading.bits_per_byte if reading is not None else None
    if said is None or said.low is not None:
        return figure(said)
    return alike(said.estimate, candidate.bits_per_byte)


def _candidates(findings: Findings, chosen: Recommendation) -> list[Candidate]:
    return [findings.candidate(key) for key in chosen.candidates]


def _best_of(findings: Findings, chosen: Recommendation) -> BestSet | None:
    return next((corpus.best for corpus in findings.corpora if corpus.label == chosen.corpus), None)


def _verdict(findings: Findings, chosen: Recommendation) -> str:
    """The claim up to the configuration that it says to take: what it gains is said after it."""
    for candidate in _candidates(findings, chosen):
        head, found, _ = chosen.claim.partition(f"take {candidate.label}")
        if found:
            return head + found
    return sentences(chosen.claim)[0]


def _searches(findings: Findings) -> list[str]:
    """That the choice was found by a search, and how much of it was trained to the end."""
    found = findings.searches
    return [item.claim + (f" on {item.corpus}" if len(found) > 1 else "") for item in found]


def _reasons(findings: Findings, chosen: Recommendation) -> list[str]:
    candidates, best = _candidates(findings, chosen), _best_of(findings, chosen)
    if not chosen.is_taken:
        return [*sentences(chosen.claim)[1:], *chosen.on_test, *chosen.caveats]
    found = [] if chosen.gain is None else [_gain(chosen.gain, chosen.bits_per_byte, candidates)]
    gravest = chosen.caveats[:1] if _is_grave(findings, candidates) else ()
    found += [*chosen.elsewhere[:1], *gravest, *chosen.on_test[:1], *chosen.elsewhere[1:]]
    label = candidates[0].label
    others = [contrast(findings.candidate(key).label, label) for key in chosen.alternatives]
    if others and not chosen.is_decided:
        found.append(f"The best is among these {len(others) + 1}, 95 times in a hundred: {_members(others)}")
    if best is not None and len(best.tied) > 1:
        costs = [(contrast(item.label, label), words) for item, words in tied_costs(findings, best) if words]
        found += [_begun(f"{name} instead costs {words}") for name, words in costs if name != label][:1]
    return [*found, *chosen.caveats[len(gravest) :], *chosen.on_test[1:]]


def _is_grave(findings: Findings, candidates: Sequence[Candidate]) -> bool:
    """Whether the choice is not among the best on one of its corpora, gains on templates, or lacks seeds.

    Its first caveat says so.
    """
    tied = {key for corpus in findings.corpora for key in corpus.best.tied}
    return any(item.key not in tied or has_templates(item) or item.without_result for item in candidates)


def _members(others: Sequence[str]) -> str:
    """The choice itself and as many others as a short sentence has room for."""
    shown: list[str] = []
    for name in others[:MAX_SENTENCES]:
        if len(" ".join([*shown, name]).split()) <= MAX_WORDS_LISTED:
            shown.append(name)
    more = len(others) - len(shown)
    return "; ".join(["this", *shown]) + (f" and {more} more" if more else "")


def _gain(gain: Interval, reached: Interval | None, candidates: Sequence[Candidate]) -> str:
    """With how much training that took; of several corpora, the one with the most steps."""
    shown = f"{figure(gain)} bits per byte{' on mean' if len(candidates) > 1 else ''} (95 %: {span(gain)})"
    share = relative_gain(gain, reached)
    most = max((item.trained for item in candidates if item.trained is not None), key=lambda t: t.steps, default=None)
    after = "" if most is None else f"{' after at most ' if len(candidates) > 1 else ' after '}{trained_words(most)}"
    return f"It gains {shown}" + ("" if share == NONE else f", {share} against the base") + after


def trained_words(trained: Trained | None) -> str:
    """How much training it was."""
    return NONE if trained is None else training(trained.train_bytes, trained.epochs, trained.steps, trained.seconds)


def _model_line(hierarchy: ModelHierarchy, item: ModelRank) -> ModelLine:
    mean = item.mean_bits_per_byte
    return ModelLine(item.model, figure(mean), span(mean), model_standing(hierarchy, item))


def model_standing(hierarchy: ModelHierarchy, item: ModelRank) -> Standing:
    """Of a model over all shared corpora; no words for one that is not the best."""
    if not (item.is_tied_best and hierarchy.is_answered):
        return Standing("")
    if sum(other.is_tied_best for other in hierarchy.ranking) > 1:
        return Standing("may be the best")
    is_decided = item.mean_bits_per_byte is not None and item.mean_bits_per_byte.num_seeds > 1
    return Standing("best" if is_decided else "lowest, on one seed", is_decided)


def _corpus_line(findings: Findings, chosen: Recommendation) -> CorpusLine:
    label, best = chosen.corpus or "all corpora", _best_of(findings, chosen)
    if not chosen.candidates:
        lowest = findings.candidate(best.lowest) if best is not None and best.lowest is not None else None
        if lowest is None or lowest.versus_base is Verdict.NOT_COMPARED:
            return CorpusLine(label, NONE, *(NONE,) * 4, Standing("not compared" if lowest else "no result"))
        words = "all worse than it" if lowest.versus_base is Verdict.HIGHER else "no gain detected"
        return CorpusLine(label, "the base", *(NONE,) * 4, Standing(words))
    candidate = findings.candidate(chosen.candidates[0])
    reading = findings.test_of(candidate.key)
    if chosen.is_withdrawn:
        return CorpusLine(label, "the base", *(NONE,) * 4, Standing(chosen.standing))
    return CorpusLine(
        corpus=label,
        choice=candidate.label,
        figure=figure(chosen.bits_per_byte),
        span=span(chosen.bits_per_byte),
        gain=relative_gain(chosen.gain, chosen.bits_per_byte),
        test=shown_on_test(reading, candidate),
        standing=_corpus_standing(chosen, candidate, best),
    )


def _corpus_standing(chosen: Recommendation, candidate: Candidate, best: BestSet | None) -> Standing:
    if chosen.is_decided:
        return Standing("best", is_decided=True)
    if best is None or not best.comparisons:
        return Standing("alone")
    at_most = best.cost_at_most.get(candidate.key) if len(best.tied) > 1 else None
    return Standing(chosen.standing + ("" if at_most is None else f"; costs at most {cost(at_most)}"))
