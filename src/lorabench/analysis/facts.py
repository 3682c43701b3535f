"""Parts of the findings that choose nothing: what is there, what has no result, lengths, answers, searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lorabench.analysis.statistics import Interval
from lorabench.records.schema import Status


@dataclass(frozen=True)
class ExperimentFacts:
    """One experiment among the records."""

    name: str
    question: str
    num_runs: int
    num_completed: int
    commands: tuple[str, ...]
    """As they were typed, each once."""


@dataclass(frozen=True)
class ModelFactsShown:
    """A base model as the records know it."""

    name: str
    revision: str
    family: str
    num_parameters: int | None
    licence: str | None
    weights_note: str | None
    pinned: bool


@dataclass(frozen=True)
class Overview:
    """What lies in the folder."""

    num_runs: int
    num_by_status: Mapping[Status, int]
    experiments: tuple[ExperimentFacts, ...]
    models: tuple[ModelFactsShown, ...]
    corpora: tuple[str, ...]
    seeds: tuple[int, ...]
    varied: tuple[str, ...]
    """Axes that were tried with more than one value, whatever became of the runs; by name."""
    hardware: tuple[str, ...]
    lorabench_versions: tuple[str, ...]
    code: tuple[str, ...]
    """Commits, with `(changed)` where the checkout was, or the code's hash where there was none."""
    last_finished_at: str | None
    train_seconds: float


@dataclass(frozen=True)
class QuantizedBase:
    """A base that was quantised, beside the same one as it is; nothing was trained."""

    model: str
    corpus: str
    """Its label."""
    quantization: str
    bits_per_byte: float
    """On validation."""
    difference: Interval
    """Quantised minus as it is: positive is worse; as wide as the correction makes it."""
    weight_bytes: int | None
    """As they are held."""
    whole_weight_bytes: int | None
    """Without quantisation."""


@dataclass(frozen=True)
class LengthBucket:
    """Documents of one range of lengths, scored by the best candidate of a model on a corpus."""

    corpus: str
    model: str
    candidate: str
    low_bytes: int
    high_bytes: int
    num_documents: int
    bits_per_byte: float
    base_bits_per_byte: float | None
    perplexity: float


@dataclass(frozen=True)
class UnfinishedRun:
    """A run without a full result: it is listed, never dropped."""

    run_id: str
    status: Status
    reason: str
    experiment: str
    model: str
    corpus: str
    label: str
    is_interrupted: bool
    """Whether the same command goes on with it: nothing is wrong with the run."""


@dataclass(frozen=True)
class AnswersFinding:
    """What a candidate's answers to one split are worth by one metric, mean over questions and seeds."""

    candidate: str
    """Key."""
    split: str
    metric: str
    base: Interval
    adapted: Interval
    gain: Interval
    """Adapted minus base, paired by question: positive is better."""
    num_left_out: int
    num_cut: int
    """Of the adapter's answers, over all seeds."""
    base_num_cut: int
    num_times: int
    """How often the split was answered, the most of any seed."""


PROMISES = {
    "halving": "Halving promises nothing: what lags at a rung may lead at the end, and is gone",
    "racing": "Racing keeps the best at a rung's own budget 95 times in a hundred, over documents, seeds and all "
    "rungs; where curves cross later, the best at the end may be gone",
}


@dataclass(frozen=True)
class Racer:
    """One run of a search."""

    run_id: str
    label: str
    seed: int
    status: Status
    reason: str
    points: tuple[tuple[float, float], ...]
    """Share of the run, and bits per byte there: at its rungs and, where it came so far, at its end."""


@dataclass(frozen=True)
class SearchFindings:
    """The search on one corpus."""

    corpus: str
    """With its rungs where there are several searches on it."""
    strategy: str
    shares: tuple[float, ...]
    """At which rungs are."""
    racers: tuple[Racer, ...]
    """Those that came farthest first."""
    num_tried: int
    """Configurations."""
    num_finished: int
    whole_runs: float
    """What was trained, in runs from beginning to end."""
    whole_runs_without: int
    """Had every configuration been trained to its end, with the seeds that it was compared with."""

    @property
    def claim(self) -> str:
        """For the first page."""
        found = "Found by search" if self.num_finished else "By search"
        return f"{found}: {self.num_tried} tried, {self.num_finished} finished ({self.strategy})"

    @property
    def saving(self) -> str:
        """What was trained, and what was not."""
        share = self.whole_runs / self.whole_runs_without
        return (
            f"As much was trained as in {self.whole_runs:.1f} whole runs; all configurations to their end would have "
            f"been {self.whole_runs_without}, so it took {100 * share:.0f} % of that"
        )

    @property
    def turned(self) -> str:
        """That a rung was lower than every end; empty where none was. Figures are of the same documents."""
        ends = [racer.points[-1][1] for racer in self.racers if racer.points and racer.points[-1][0] == 1.0]
        rungs = [(bits, share, racer) for racer in self.racers for share, bits in racer.points if share < 1.0]
        if not ends or not rungs:
            return ""
        bits, share, racer = min(rungs, key=lambda found: found[0])
        if round(bits, 4) >= round(min(ends), 4):
            return ""
        return (
            f"No run ended as low as {racer.label}, seed {racer.seed}, was after {share:.3g} of its steps: {bits:.4f} "
            f"against {min(ends):.4f} bits per byte, so less training, or a lower rate, may do better"
        )

    @property
    def promise(self) -> str:
        """What the strategy promises, and what not."""
        return PROMISES.get(self.strategy, "")
