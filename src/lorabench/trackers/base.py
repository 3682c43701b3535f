"""The one small interface behind which every tracker lives, and what it is handed.

A tracker may be slow, offline or broken: nothing here is allowed to matter to a run. `trackers.make` runs every
tracker but the run's own file in a thread of its own and switches it off at its first failure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lorabench.experiment.identity import configuration_of
from lorabench.experiment.schema import RunSpec
from lorabench.methods.registry import method_of
from lorabench.records.columns import STEP_FIGURES
from lorabench.records.schema import RunRecord, Sample, Scores

Values = Mapping[str, Any]
"""Plain values by name; always with `step`."""

STEP_FIELDS = tuple(STEP_FIGURES)
"""What is logged after every optimizer step."""
MAX_QUEUED = 50_000
"""Figures waiting for a tracker before it is given up: some 50 MB."""
STALL_SECONDS = 180.0
"""A single call that takes longer never comes back."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker has to know about a run before its first step."""

    run_id: str
    attempt: int
    """1 for the first time this run is tried, 2 for the next, …"""
    experiment: str
    spec: RunSpec
    folder: Path
    """The run's own folder, `OUTPUT/runs/<run_id>`."""
    tags: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further facts for the configuration: sizes, revisions, hardware."""

    @property
    def group(self) -> str:
        """What the seeds and attempts of one configuration have in common: `lora-r16 lr0.001 news smollm2 3f2a90`."""
        return f"{self._configuration} {configuration_of(self.spec)[:6]}"

    @property
    def title(self) -> str:
        """The run for people, what differs first: `lora-r16 lr0.001 s0 news smollm2`, and `#2` for a second attempt."""
        method, rate, *others = self._configuration.split(" ")
        again = [f"#{self.attempt}"] if self.attempt > 1 else []
        return " ".join([method, rate, f"s{self.spec.seed}", *others, *again])

    @property
    def _configuration(self) -> str:
        method = method_of(self.spec.adapter).short_name(self.spec.adapter)
        return f"{method} lr{self.spec.training.learning_rate:g} {self.spec.dataset} {self.spec.model}"


@dataclass(frozen=True)
class TrackedReport:
    """The report on an experiment, built once its runs have ended."""

    experiment: str
    files: tuple[Path, ...]
    """The page first; none has the name of another."""

    @property
    def title(self) -> str:
        """For people."""
        return f"report {self.experiment}"


class Tracker(Protocol):
    """Takes the figures of one run after another."""

    def start(self, run: TrackedRun) -> None:
        """A run begins."""

    def log_step(self, values: Values) -> None:
        """One optimizer step: the STEP_FIELDS."""

    def log_evaluation(self, values: Values) -> None:
        """One validation scoring: what `evaluation_values` returns."""

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Continuations written by the finished adapter."""

    def finish(self, record: RunRecord | None, status: str) -> None:
        """The run ended; `record` is None where there is none."""

    def log_report(self, report: TrackedReport) -> None:
        """After the last run. The files are written anew by every later command: keep copies."""


@dataclass(frozen=True)
class TrackerOptions:
    """What a user may choose about tracking."""

    project: str = "lorabench"
    """W&B's or trackio's project; WANDB_PROJECT wins for W&B."""
    upload_adapters: bool = False
    """Hand each trained adapter to W&B as an artifact."""
    close_seconds: float = 40.0
    """How long the end of the command waits for slow trackers, all of them together."""
    max_queued: int = MAX_QUEUED
    stall_seconds: float = STALL_SECONDS


@dataclass(frozen=True)
class TrackerKind:
    """How one kind of tracker is made; `TRACKER` in its file."""

    make: Callable[[Path, TrackerOptions, Callable[[str], None]], Tracker]
    """From the output folder, the options, and where one sentence may be reported. Must not import the service's
    package: `start` does, in the tracker's own thread."""
    extra: str | None = None
    """lorabench's optional dependencies that bring the package of the same name; None: it comes with lorabench."""
    needs: tuple[str, ...] = ()
    """Further packages that the extra brings and the tracker cannot do without."""


def evaluation_values(step: int, train_tokens: int, scores: Scores) -> dict[str, float | int | None]:
    """The figures of one validation scoring, under the names that every tracker uses."""
    return {
        "step": step,
        "train_tokens": train_tokens,
        "validation_loss": finite(scores.loss),
        "validation_perplexity": finite(scores.perplexity),
        "validation_bits_per_byte": finite(scores.bits_per_byte),
        "validation_bits_per_token": finite(scores.bits_per_token),
        "validation_word_perplexity": finite(scores.word_perplexity),
    }


def finite(value: float | None) -> float | None:
    """None for what JSON and the trackers have no number for."""
    return value if value is not None and math.isfinite(value) else None


def run_config(run: TrackedRun) -> dict[str, Any]:
    """The run's configuration, flat, under the names of the results table; then the extra facts."""
    spec: dict[str, Any] = run.spec.model_dump(mode="json")
    adapter, training, evaluation = spec.pop("adapter"), spec.pop("training"), spec.pop("evaluation")
    facts = {"run_id": run.run_id, "attempt": run.attempt, "experiment": run.experiment}
    flat: dict[str, Any] = facts | spec | adapter | {"alpha": run.spec.adapter.alpha_value} | training
    flat |= dict.fromkeys(method_of(run.spec.adapter).unused_settings)
    flat |= {f"evaluation.{name}": value for name, value in evaluation.items()}
    return flat | dict(run.extra)


def run_tags(run: TrackedRun, status: str | None = None) -> tuple[str, ...]:
    """Model, corpus, method, rank, status, and the run's own tags: what one filters a project by."""
    adapter = run.spec.adapter
    tags = [run.spec.model, run.spec.dataset, adapter.method, run.experiment]
    tags += [f"rank-{adapter.rank}"] if method_of(adapter).uses("rank") else []
    tags += [*run.tags, *([status] if status else [])]
    return tuple(dict.fromkeys(clean_name(tag, 64) for tag in tags if tag))


def artifact_name(report: TrackedReport) -> str:
    """Of letters, digits, dots, dashes and underscores; a later report of the experiment is its next version."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"report-{report.experiment}")[:120]


def clean_name(text: str, max_length: int) -> str:
    """`text` without control characters, its middle left out where it is too long for a dashboard."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).strip() or "unnamed"
    if len(text) <= max_length:
        return text
    tail = max_length // 2
    return f"{text[: max_length - tail - 1]}…{text[-tail:]}"
