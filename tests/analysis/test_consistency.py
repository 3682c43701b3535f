"""Reads the sentences and figures of many findings against one another: none may contradict another one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from lorabench.analysis.analyse import choose
from lorabench.analysis.findings import AxisFindings, BestSet, Comparison, Findings, Recommendation, Verdict
from lorabench.analysis.test_reading import read_test
from lorabench.analysis.validation import DocumentReader, validation_run
from lorabench.core.formatting import NONE, figure, figure_and_span
from lorabench.experiment.schema import RunSpec, ScoringSettings, TrainingSettings
from lorabench.methods.settings import AdapterSettings
from lorabench.records.documents import DocumentResults
from lorabench.records.schema import Evaluation, RunRecord, Scores, Status
from lorabench.report.headline import Standing, headline_of
from lorabench.report.headline import sentences as sentences_of
from tests.marks import slow
from tests.report.synthetic import ENVIRONMENT, LN2, Floats

NUM_FOLDERS, NUM_BATCHES = 200, 4
MAX_WORDS, MAX_RUNS = 30, 36
CORPORA = ("news", "medical", "stories", "python-code")
MODELS = ("smollm2-135m", "pythia-mini", "gpt2-mini")
NAMES = {*CORPORA, *MODELS}


class Folder:
    """An experiment drawn at random, its records and per-document results in memory."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.records: list[RunRecord] = []
        self.tables: dict[tuple[str, str], DocumentResults] = {}
        self.num_documents = int(random.choice([3, 12, 30, 60]))
        self.size, self.gain = float(random.choice([0.0, 0.004, 0.02, 0.2])), float(random.choice([-0.05, 0.004, 0.15]))
        self.noise, self.spread = float(random.choice([0.003, 0.03])), float(random.choice([0.0003, 0.003]))
        self.failing, self.unread = float(random.choice([0.0, 0.0, 0.15])), float(random.choice([0.0, 0.0, 0.05]))
        self.on_test = float(random.choice([0.0, 0.01, 0.1]))
        self.shifts: dict[object, float] = {}
        corpora, models, ranks, rates, num_seeds = self._design()
        precisions = ["fp32", "bf16"][: 1 + (random.random() < 0.2)]
        lengths = {
            (name, split): np.maximum(20.0, random.lognormal(7.0, 1.0, self.num_documents).round())
            for name in corpora
            for split in ("validation", "test")
        }
        for name, model, rank, rate in itertools.product(corpora, models, ranks, rates):
            for seed in range(num_seeds):
                precision = precisions[rank // 16 % len(precisions)]
                self._add(name, model, rank, rate, precision, seed, lengths)

    def _design(self) -> tuple[Sequence[str], Sequence[str], Sequence[int], Sequence[float], int]:
        """Corpora, models, ranks, rates and how many seeds, of few runs."""
        while True:
            most = self.random.integers(1, [5, 4, 4, 4, 4])
            if np.prod(most) <= MAX_RUNS:
                ranks, rates = (8, 16, 32)[: most[2]], (3e-4, 1e-3, 3e-3)[: most[3]]
                return CORPORA[: most[0]], MODELS[: most[1]], ranks, rates, int(most[4])

    def _shift(self, *key: object) -> float:
        """The same for the same key, whatever else differs."""
        if key not in self.shifts:
            self.shifts[key] = float(self.random.normal(0.0, self.size))
        return self.shifts[key]

    def _add(
        self,
        name: str,
        model: str,
        rank: int,
        rate: float,
        precision: str,
        seed: int,
        lengths: dict[tuple[str, str], Floats],
    ) -> None:
        spec = RunSpec(
            model=model,
            model_revision="1",
            dataset=name,
            dataset_revision="2",
            adapter=AdapterSettings(rank=rank),
            training=TrainingSettings(learning_rate=rate, precision=precision),
            evaluation=ScoringSettings(),
            seed=seed,
        )
        run_id = f"{name}-{model}-{rank}-{rate}-{seed}"
        values: dict[str, object] = {"status": Status.COMPLETED}
        if self.random.random() < self.failing:
            values = {"status": self.random.choice([Status.DIVERGED, Status.FAILED]), "status_reason": "at step 3"}
        else:
            true = (
                1.1 - self.gain + self._shift(model) + self._shift(rank) + self._shift(rate) + self._shift(name, rank)
            )
            seed_shift = self.random.normal(0.0, self.spread)
            for split in ("validation", "test"):
                extra = self.random.normal(0.0, self.on_test) if split == "test" else 0.0
                table = self._table(name, model, split, true + extra + seed_shift, lengths[name, split])
                if self.random.random() >= self.unread:
                    self.tables[run_id, split] = table
                field = {"validation": "validation", "test": "test"}[split]
                values[field], values[f"base_{split}"] = _total(table, table.nll), _total(table, table.base_nll)
            values |= {
                "num_test_scorings": 1,
                "evaluations": self._curve(values["validation"], values["base_validation"]),
            }
        self.records.append(
            RunRecord(
                run_id=run_id,
                experiment="random",
                spec=spec,
                environment=ENVIRONMENT,
                started_at="2026-11-24T12:00:00+00:00",
                **values,
            )
        )

    def _table(self, name: str, model: str, split: str, true: float, num_bytes: Floats) -> DocumentResults:
        fixed = np.random.default_rng([len(name), len(model), len(split)])
        difficulty = fixed.normal(0.0, 0.2, self.num_documents)
        own = self.random.normal(0.0, self.noise, self.num_documents)
        nll = np.maximum(0.01, true + difficulty + own) * LN2 * num_bytes
        base = np.maximum(0.01, 1.1 + self._shift(model) + difficulty) * LN2 * num_bytes
        return DocumentResults(f"{name} {split}", num_bytes, num_bytes / 4, num_bytes / 6, nll, base)

    def _curve(self, last: object, base: object) -> tuple[Evaluation, ...]:
        assert isinstance(last, Scores)
        assert isinstance(base, Scores)
        low, high = last.negative_log_likelihood, base.negative_log_likelihood
        middle = float(self.random.choice([0.8, 1.0]))
        shares = (0.5, middle, 1.0)
        return tuple(
            Evaluation(
                step=10 * (index + 1),
                train_tokens_seen=100,
                validation=last.model_copy(update={"negative_log_likelihood": high + (low - high) * share}),
            )
            for index, share in enumerate(shares)
        )

    def findings(self) -> Findings:
        runs = [validation_run(record, self.tables.get((record.run_id, "validation"))) for record in self.records]
        return read_test(choose(runs, lambda run_id, dataset: None), self.records, InMemory(self.tables))


class InMemory(DocumentReader):
    """Per-document results that no folder holds."""

    def __init__(self, tables: dict[tuple[str, str], DocumentResults]) -> None:
        self.problems: list[str] = []
        self._tables = tables

    def read(self, record: RunRecord, split: str, expected: Scores) -> DocumentResults | None:
        return self._tables.get((record.run_id, split))


def _total(table: DocumentResults, nll: Floats | None) -> Scores:
    assert nll is not None
    return Scores(
        negative_log_likelihood=float(nll.sum()),
        num_tokens=int(table.num_bytes.sum() / 4),
        num_bytes=int(table.num_bytes.sum()),
        num_words=100,
        num_documents=len(table.num_bytes),
    )


@pytest.mark.parametrize("batch", [0, *map(slow, range(1, NUM_BATCHES))])
def test_no_two_sentences_or_figures_contradict_one_another(batch: int) -> None:
    for number in range(batch, NUM_FOLDERS, NUM_BATCHES):
        findings = Folder(np.random.default_rng(number)).findings()
        for check in CHECKS:
            problems = [f"folder {number}: {problem}" for problem in check(findings)]
            assert not problems, "\n".join(problems)


def choices(findings: Findings) -> list[Recommendation]:
    return [*findings.recommendations, *([findings.overall] if findings.overall else [])]


def axes(findings: Findings) -> list[AxisFindings]:
    groups = (findings.ranks, findings.learning_rates, findings.other_axes, findings.hierarchy.per_corpus)
    return [axis for group in groups for axis in group]


def claims(findings: Findings) -> list[str]:
    """Everything that is said, claim by claim."""
    found = [findings.hierarchy.claim, *findings.hierarchy.caveats, *findings.unanswered, *findings.next_steps]
    for corpus in findings.corpora:
        found += [corpus.best.claim, *corpus.caveats]
    for axis in axes(findings):
        found += [axis.claim, *axis.caveats]
    for choice in choices(findings):
        found += [choice.claim, *choice.caveats, *choice.on_test, choice.standing]
    return found


def sentences(findings: Findings) -> list[str]:
    return [sentence for claim in claims(findings) for sentence in claim.split(". ")]


def comparisons(findings: Findings) -> list[Comparison]:
    found = [item for corpus in findings.corpora for item in corpus.best.comparisons]
    found += [item for axis in axes(findings) for item in axis.comparisons]
    return [*found, *findings.hierarchy.comparisons]


def ends(sentence: str) -> tuple[float, float] | None:
    """Of the interval in a sentence."""
    found = re.search(r"\((?:95 %(?: interval|:) )?([+−]?[\d.]+) to ([+−]?[\d.]+)\)", sentence)
    return None if found is None else (_float(found[1]), _float(found[2]))


def _float(text: str) -> float:
    return float(text.replace("−", "-"))


def check_lengths(findings: Findings) -> Iterator[str]:
    labels = {choice.standing for choice in choices(findings)}
    for sentence in sentences(findings):
        if len(sentence.split()) > MAX_WORDS:
            yield f"{len(sentence.split())} words: {sentence}"
        is_name = sentence.split()[0].rstrip(",:") in NAMES
        if sentence[:1].islower() and not is_name and sentence not in labels:
            yield f"begins small: {sentence}"
    for claim in claims(findings):
        if claim != claim.strip(" .") or "  " in claim or " ." in claim or "None" in claim:
            yield f"not whole: {claim}"


def check_intervals_agree_with_verdicts(findings: Findings) -> Iterator[str]:
    for item in comparisons(findings):
        if item.difference is None or item.difference.low is None:
            continue
        if item.difference.excludes_zero is (item.verdict is Verdict.NO_DETECTABLE_DIFFERENCE):
            yield f"{item}"
        below = {Verdict.LOWER: True, Verdict.NOT_THE_BEST: True, Verdict.HIGHER: False}.get(item.verdict)
        if below is not None and (item.difference.estimate < 0) is not below:
            yield f"{item}"


def check_words_agree_with_the_interval_beside(findings: Findings) -> Iterator[str]:
    for claim in claims(findings):
        found = ends(claim)
        if found is None:
            continue
        excludes = found[0] > 0 or found[1] < 0
        if excludes and re.match(r"No detectable difference|.* is not detectably better", claim):
            yield claim
        if not excludes and re.match(r"Best (on|model|rank|learning)|.* take .* below its base \(95", claim):
            yield claim


def check_decided_is_said_alike_everywhere(findings: Findings) -> Iterator[str]:
    by_label = {corpus.label: corpus.best for corpus in findings.corpora}
    for choice in choices(findings):
        said = choice.standing == "the best, beyond chance"
        if said is not choice.is_decided:
            yield f"{choice.standing} but decided {choice.is_decided}"
        if choice.is_decided and (choice.alternatives or not choice.is_taken or "cannot be told" in choice.claim):
            yield f"decided: {choice.claim}"
        if choice.is_decided and any(len(findings.candidate(key).seeds) == 1 for key in choice.candidates):
            yield f"decided on one seed: {choice.claim}"
        if choice.corpus is not None and choice.is_decided and not by_label[choice.corpus].is_decided:
            yield f"decided here only: {choice.claim}"
    decided = [choice.corpus for choice in findings.recommendations if choice.is_decided]
    for step in findings.next_steps:
        if any(f" on {corpus} (" in step and " from chance" not in step for corpus in decided):
            yield f"{step} although one is decided"


def check_axes_beside_the_best(findings: Findings) -> Iterator[str]:
    alone = {corpus.label: corpus.best.lowest for corpus in findings.corpora if corpus.best.is_alone}
    for axis in (*findings.ranks, *findings.learning_rates, *findings.other_axes):
        tied = [level.candidate for level in axis.levels if level.is_tied_best]
        is_said = any("but this question corrects for" in caveat for caveat in axis.caveats)
        if axis.is_answered and (len(tied) > 1 and alone.get(axis.corpus) in tied) is not is_said:
            yield f"{axis.claim} beside {alone.get(axis.corpus)}"


def check_one_value_for_one_quantity(findings: Findings) -> Iterator[str]:
    for corpus, choice in zip(findings.corpora, findings.recommendations, strict=True):
        if corpus.best.lowest is None:
            continue
        lowest = findings.candidate(corpus.best.lowest)
        if f"{lowest.label} with {figure(lowest.bits_per_byte)} bits per byte" not in corpus.best.claim:
            yield f"another figure: {corpus.best.claim}"
        if choice.is_taken and f"take {lowest.label}: {figure(lowest.bits_per_byte)} bits per byte" not in choice.claim:
            yield f"another figure: {choice.claim}"
        if choice.gain != lowest.gain:
            yield f"another gain: {choice.claim}"
    for choice in choices(findings):
        yield from _test_figures(findings, choice)


def _test_figures(findings: Findings, choice: Recommendation) -> Iterator[str]:
    for key in choice.candidates if choice.corpus is not None else ():
        reading = findings.test_of(key)
        if reading is None or reading.gain is None:
            continue
        said = " / ".join(choice.on_test)
        if reading.gain.low is not None and f"On test it gains {figure_and_span(reading.gain)}, " not in said:
            yield f"another gain on test: {said}"
        gap = re.search(r"([\d.]+) (more|less) than on validation", said)
        if gap is None and "as on validation" not in said:
            yield f"no gap: {said}"
        if gap is not None and not _is_rounded(gap[1], (1 if gap[2] == "more" else -1) * (reading.gain_gap or 0.0)):
            yield f"another gap than {reading.gain_gap}: {said}"
        if (reading.gain.estimate < 0) is not choice.is_withdrawn:
            yield f"{choice.claim} at {reading.gain}"
        if choice.is_withdrawn and f"{choice.corpus} take" in choice.claim:
            yield f"withdrawn: {choice.claim}"


def _is_rounded(text: str, value: float) -> bool:
    return abs(float(text) - value) <= 0.5001 * 10.0 ** -len(text.partition(".")[2])


def check_what_the_choice_over_all_loses(findings: Findings) -> Iterator[str]:
    choice = findings.overall
    if choice is None or not choice.candidates:
        return
    best: dict[str, BestSet] = {corpus.label: corpus.best for corpus in findings.corpora}
    alone = 0
    for key in choice.candidates:
        corpus = findings.candidate(key).corpus
        is_said = any(item.startswith(f"On {corpus} ") and "is lower than it" in item for item in choice.caveats)
        if is_said is not (key not in best[corpus].tied):
            yield f"on {corpus}: {choice.caveats}"
        alone += best[corpus].is_alone and best[corpus].lowest == key
    if ("on each corpus by itself" in choice.claim) and alone < len(choice.candidates):
        yield f"alone on {alone}: {choice.claim}"
    found = re.search(r"on (\w+) of \d+ corpora by itself", choice.claim)
    if found and found[1] != (str(alone) if alone else "none"):
        yield f"alone on {alone}: {choice.claim}"


def check_seeds_without_a_result_are_said(findings: Findings) -> Iterator[str]:
    for choice in choices(findings):
        lost = any(findings.candidate(key).without_result for key in choice.candidates)
        is_said = re.search(r"(diverged|failed|gave no result) on", choice.claim) is not None
        if choice.is_taken and lost is not is_said:
            yield f"lost a seed {lost}: {choice.claim}"
        if lost and choice.is_decided:
            yield f"decided: {choice.claim}"


def check_the_models_ranked_beside_the_choice(findings: Findings) -> Iterator[str]:
    """The best model is that of the choice over all, or the caveats say why not."""
    hierarchy, choice = findings.hierarchy, findings.overall
    if choice is None or not choice.is_decided or not hierarchy.claim.startswith("Best model"):
        return
    chosen = findings.candidate(choice.candidates[0]).model
    if chosen != hierarchy.ranking[0].model:
        yield f"{hierarchy.claim} / {choice.claim}"


def check_the_first_screen(findings: Findings) -> Iterator[str]:
    """It says in short what the findings say."""
    first, choice = headline_of(findings), findings.overall or findings.recommendations[0]
    for sentence in (first.verdict, *first.reasons, *first.model_claims, *first.settings, *first.unknown, *first.steps):
        for part in sentences_of(sentence):
            if len(part.split()) > MAX_WORDS or not part:
                yield f"{len(part.split())} words: {part}"
    if findings.overall is not None or len(findings.recommendations) == 1:
        if (" take " in first.verdict.removeprefix("Nothing to take ")) is not choice.is_taken:
            yield f"{first.verdict} / {choice.claim}"
        if first.standing != Standing(choice.standing, choice.is_decided):
            yield f"{first.standing} / {choice.standing}"
    tied = {key for corpus in findings.corpora for key in corpus.best.tied}
    if choice.is_taken and not set(choice.candidates) <= tied and "is lower than it" not in " ".join(first.reasons[:3]):
        yield f"a loss is not on the first screen: {first.reasons}"
    for line, each in zip(first.corpora, findings.recommendations, strict=True):
        if line.standing.is_decided is not each.is_decided or (line.figure != NONE) is not each.is_taken:
            yield f"{line} / {each.claim}"


CHECKS = (
    check_lengths,
    check_intervals_agree_with_verdicts,
    check_words_agree_with_the_interval_beside,
    check_decided_is_said_alike_everywhere,
    check_axes_beside_the_best,
    check_one_value_for_one_quantity,
    check_what_the_choice_over_all_loses,
    check_seeds_without_a_result_are_said,
    check_the_models_ranked_beside_the_choice,
    check_the_first_screen,
)
