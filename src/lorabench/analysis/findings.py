"""What an analysis of records found: plain frozen values that table, summary, figures and page are written from.

`analysis.analyse` computes them. Nothing here holds markup: names, reasons and sentences are plain text, some of it
other people's, and whoever shows it escapes it. Sentences have no final full stop. Bits per byte; lower is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lorabench.analysis.facts import (
    AnswersFinding,
    LengthBucket,
    Overview,
    QuantizedBase,
    SearchFindings,
    UnfinishedRun,
)
from lorabench.analysis.spread import Detectable
from lorabench.analysis.statistics import Interval
from lorabench.records.schema import Status

Setting = str | int | float | None
"""The value of one axis."""


class Verdict(StrEnum):
    """What a comparison came to, after correction for the number of comparisons."""

    LOWER = "lower"
    """The first is lower, so better, beyond doubt at the level stated."""
    HIGHER = "higher"
    NOT_THE_BEST = "not the best"
    """The second is out of the set that holds the best: the first is lower by more than chance allows."""
    NO_DETECTABLE_DIFFERENCE = "no detectable difference"
    NOT_COMPARED = "not compared"
    """The data does not allow the comparison; the reason is beside."""


@dataclass(frozen=True)
class Comparison:
    """First minus second, in bits per byte."""

    first: str
    """What is compared: candidate keys, models or values of an axis, as shown."""
    second: str
    verdict: Verdict
    difference: Interval | None = None
    """As wide as the correction makes it, so that it agrees with the verdict; None without data by document."""
    adjusted_p: float | None = None
    """Corrected over everything the question compares; a verdict holds where it is below 0.05."""
    reason: str = ""
    """Why it was not compared, or what limits the verdict, such as `on seed 0 only`."""


@dataclass(frozen=True)
class Cost:
    """What a candidate's runs took: medians over its seeds. Compare only within one `hardware` and `precision`."""

    hardware: str
    precision: str
    tokens_per_second: float | None
    bytes_per_second: float | None
    """Of text: unlike tokens, comparable between tokenizers."""
    train_seconds: float | None
    peak_memory_bytes: float | None
    adapter_bytes: float | None
    trainable_parameters: int | None
    speeds: tuple[float, ...] = ()
    """Bytes per second of each run."""


@dataclass(frozen=True)
class Trained:
    """How much training a candidate's runs were: medians over its seeds."""

    train_bytes: int
    """Of text in one epoch."""
    epochs: int
    steps: int
    seconds: float | None
    """In training steps."""


@dataclass(frozen=True)
class Candidate:
    """A configuration on one corpus: everything but the seed."""

    key: str
    """Short and unique within the findings; safe as an HTML id."""
    corpus: str
    """The `label` of its CorpusFindings."""
    model: str
    label: str
    """What sets it apart from the others, such as `smollm2, rank 16, rate 0.001`."""
    settings: Mapping[str, Setting]
    """Every axis by its name: model, method, rank, alpha (the rule), …, learning_rate, context_length, precision."""
    seeds: tuple[int, ...]
    run_ids: tuple[str, ...]
    """Of the runs with a result, one for each seed, in the order of `seeds`."""
    bits_per_byte: Interval
    """On validation, mean over seeds."""
    gain: Interval | None
    """Base minus adapted, on validation: positive is better. None where no base was scored."""
    base_bits_per_byte: float | None
    seed_deviation: float | None
    """Standard deviation of the figure over seeds; None with one seed."""
    perplexity: float
    bits_per_token: float
    word_perplexity: float
    """On validation, from the mean loss over seeds. Perplexity and bits per token: within one tokenizer only."""
    last_bits_per_byte: float | None
    best_checkpoint_bits_per_byte: float | None
    """On validation, of the last scoring and of the best along the run; means over seeds."""
    last_training_loss: float | None
    cost: Cost
    trained: Trained | None = None
    validation_seen: float | None = None
    """Share of the validation text's eight-word sequences that its training text has."""
    versus_base: Verdict = Verdict.NOT_COMPARED
    """Of the adapted model against its base on validation, corrected over all candidates."""
    without_result: Mapping[int, Status] = field(default_factory=dict)
    """Seed -> how its run ended, for the seeds that gave no result."""
    still_falls: float | None = None
    """Bits per byte by which validation fell in the last quarter of training, where that was not flat yet."""
    rate_edge: str = ""
    """`largest` or `smallest` where it is the lowest of its settings at the end of the rates tried with them."""

    @property
    def configuration(self) -> str:
        """Its settings as one text: what has the same one on another corpus is the same configuration."""
        return repr(sorted(self.settings.items()))

    @property
    def num_seeds_tried(self) -> int:
        """With and without a result."""
        return len(self.seeds) + len(self.without_result)


@dataclass(frozen=True)
class BestSet:
    """The candidates of a corpus among which the best is, 95 times in a hundred."""

    lowest: str | None
    """Key of the candidate with the lowest figure; None without any result."""
    tied: tuple[str, ...]
    """Keys of all that may be the best, lowest first."""
    comparisons: tuple[Comparison, ...]
    """The lowest, or another that may be the best, against each other candidate (keys)."""
    cost_at_most: Mapping[str, float]
    """Of those that may be the best (keys): how much worse than the best they are at most, in bits per byte."""
    claim: str
    """The result in words, with its reason: who is best, or among how many the best is."""

    @property
    def is_alone(self) -> bool:
        """Whether all others are told not to be the best; with one seed, on that seed only."""
        return len(self.tied) == 1 and any(item.verdict is not Verdict.NOT_COMPARED for item in self.comparisons)

    @property
    def is_decided(self) -> bool:
        """Whether so with more than one seed."""
        return self.is_alone and all(item.difference.num_seeds > 1 for item in self.comparisons if item.difference)


@dataclass(frozen=True)
class CorpusFindings:
    """One corpus at one revision, scored on one set of validation documents; only within it are candidates compared."""

    label: str
    """The corpus's name, with more where a name stands for several sets of documents."""
    name: str
    revision: str
    num_documents: int
    num_bytes: int
    """Of the validation text scored."""
    effective_documents: float | None
    """Documents of one length that weigh as much as those scored; None without per-document results."""
    domain: str | None
    licence: str | None
    synthetic: bool
    pinned: bool
    removed: Mapping[str, int]
    """Documents removed when the corpus was prepared, by reason: empty, exact_duplicates, near_duplicates."""
    split_documents: Mapping[str, int]
    candidates: tuple[Candidate, ...]
    """Lowest figure first."""
    best: BestSet
    caveats: tuple[str, ...]
    detectable: Detectable | None = None
    """None where there was nothing to compare."""


@dataclass(frozen=True)
class Level:
    """One value of an axis, represented by its best configuration, which validation chose."""

    value: Setting
    shown: str
    candidate: str | None
    """Key; None where no run of this value has a result, or it could not be compared."""
    bits_per_byte: Interval | None
    num_candidates: int
    """Among how many configurations the best was chosen."""
    is_tied_best: bool
    """It is the best, or not distinguishable from the best."""


@dataclass(frozen=True)
class AxisFindings:
    """One axis, for one model and corpus: values compared at their best, on the settings that all were tried with."""

    axis: str
    """Its name in the experiment file: rank, learning_rate, target_modules, …, or `model`."""
    title: str
    model: str | None
    """None where the axis is the model."""
    corpus: str
    levels: tuple[Level, ...]
    """In the axis's order: numbers rising, names as they came."""
    comparisons: tuple[Comparison, ...]
    """All pairs of levels (as shown)."""
    is_answered: bool
    """Whether the design can answer the question at all; where not, `claim` says why."""
    claim: str
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class ModelRank:
    """A model's place over all corpora that the models share."""

    model: str
    mean_bits_per_byte: Interval | None
    """Unweighted mean over those corpora, each at the model's best configuration there."""
    is_tied_best: bool
    num_corpora_best: int
    """Corpora on which it was told apart from all other models and lower."""


@dataclass(frozen=True)
class ModelHierarchy:
    """Which base model is best, overall and per corpus."""

    is_answered: bool
    claim: str
    corpora: tuple[str, ...]
    """Labels of the corpora that the overall comparison is made over."""
    ranking: tuple[ModelRank, ...]
    comparisons: tuple[Comparison, ...]
    """Overall, all pairs of models."""
    per_corpus: tuple[AxisFindings, ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Recommendation:
    """What to take. Everything in it was chosen on validation."""

    corpus: str | None
    """None: over all corpora."""
    candidates: tuple[str, ...]
    """Keys: the chosen configuration; overall the same configuration on each corpus. Empty: no recommendation."""
    claim: str
    """The recommendation in a sentence or two, or why there is none."""
    bits_per_byte: Interval | None
    gain: Interval | None
    is_decided: bool
    """Whether the choice was the best, beyond chance, on several seeds that all gave a result."""
    alternatives: tuple[str, ...]
    """Keys of what it cannot be distinguished from, the smallest adapter first."""
    caveats: tuple[str, ...]
    """What limits it, the gravest first."""
    elsewhere: tuple[str, ...] = ()
    """What it costs on other corpora, and the better trade where it loses more there than it gains."""
    standing: str = "no recommendation"
    """How sure it is in a few words, such as `the best, beyond chance`."""
    on_test: tuple[str, ...] = ()
    """What test said of the choice, one sentence each; filled in after everything was chosen."""
    is_withdrawn: bool = False
    """Whether the choice is worse than its base on test."""

    @property
    def is_taken(self) -> bool:
        """Whether there is a choice, and test did not speak against it."""
        return bool(self.candidates) and not self.is_withdrawn


@dataclass(frozen=True)
class DriftCell:
    """What an adapter costs or gives on a corpus it was not trained on."""

    model: str
    trained_on: str
    """Label of a corpus."""
    scored_on: str
    candidate: str
    base_bits_per_byte: float
    bits_per_byte: float
    change: Interval
    """Adapted minus base: positive is worse."""
    verdict: Verdict
    """Of adapted against base, corrected over all cells of the matrix."""
    is_best_of_model: bool = False
    """Whether the candidate is its model's lowest on the corpus it was trained on."""


@dataclass(frozen=True)
class EfficiencyPoint:
    """A candidate among those it may be compared with: same corpus, hardware and precision."""

    candidate: str
    corpus: str
    hardware: str
    precision: str
    bits_per_byte: float
    cost: Cost
    on_speed_front: bool
    on_memory_front: bool
    on_size_front: bool
    """Whether no other point is better in one of quality and cost and at least as good in the other."""
    speed_spread: float | None = None
    """By which speeds of like runs there differ, as a share of their median; None where no two are alike."""
    is_speed_told: bool = True
    """Whether speeds there differ by more than that; if not, they are one value."""


@dataclass(frozen=True)
class TestReading:
    """What test said about a candidate after validation had chosen."""

    __test__ = False  # for pytest
    candidate: str
    bits_per_byte: Interval | None
    gain: Interval | None
    """Positive is better."""
    gap: float | None
    """Test minus validation, in bits per byte: mostly that the two texts differ."""
    gain_gap: float | None
    """The gain on test minus that on validation: what choosing on validation flattered is in it."""
    num_test_scorings: int
    """The most of any of its runs; more than one means that somebody looked again."""


@dataclass(frozen=True)
class Findings:
    """Everything that the records support, and in `unanswered` what they do not."""

    overview: Overview
    corpora: tuple[CorpusFindings, ...] = ()
    hierarchy: ModelHierarchy = field(
        default_factory=lambda: ModelHierarchy(False, "There are no results yet", (), (), (), (), ())
    )
    ranks: tuple[AxisFindings, ...] = ()
    """By model and corpus; each rank at its best learning rate."""
    learning_rates: tuple[AxisFindings, ...] = ()
    other_axes: tuple[AxisFindings, ...] = ()
    """Target modules, context length, method, …: whatever else was varied."""
    overall: Recommendation | None = None
    recommendations: tuple[Recommendation, ...] = ()
    """One for each corpus."""
    drift: tuple[DriftCell, ...] = ()
    efficiency: tuple[EfficiencyPoint, ...] = ()
    length_buckets: tuple[LengthBucket, ...] = ()
    unfinished: tuple[UnfinishedRun, ...] = ()
    quantized_bases: tuple[QuantizedBase, ...] = ()
    searches: tuple[SearchFindings, ...] = ()
    """By corpus, where runs were stopped early by a search."""
    unanswered: tuple[str, ...] = ()
    """Sentences on what this design leaves open: one model, one rank, one seed, …"""
    next_steps: tuple[str, ...] = ()
    """Sentences on what the data suggests to do next."""
    problems: tuple[str, ...] = ()
    """Records or files that could not be used, one sentence each."""
    test: tuple[TestReading, ...] = ()
    """Filled in after everything else was chosen."""
    answers: tuple[AnswersFinding, ...] = ()
    """Likewise: to validation of every candidate, to test of those whose test was read."""

    def candidate(self, key: str) -> Candidate:
        """The candidate of this key. Raises KeyError."""
        for corpus in self.corpora:
            for candidate in corpus.candidates:
                if candidate.key == key:
                    return candidate
        raise KeyError(key)

    def test_of(self, key: str) -> TestReading | None:
        """What test said about a candidate, where it was scored."""
        return next((reading for reading in self.test if reading.candidate == key), None)

    @property
    def ties(self) -> dict[str, frozenset[str]]:
        """By corpus name: run ids of the best candidate and of all that it cannot be distinguished from."""
        tied: dict[str, frozenset[str]] = {}
        for corpus in self.corpora:
            keys = set(corpus.best.tied)
            ids = {run_id for item in corpus.candidates if item.key in keys for run_id in item.run_ids}
            tied[corpus.name] = tied.get(corpus.name, frozenset()) | ids
        return tied
