"""A run's record while it is being made: what its stages have given so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lorabench.core.redaction import without_secrets
from lorabench.records import provenance
from lorabench.records.schema import AdapterFacts, Environment, Rung, RunRecord, Status

if TYPE_CHECKING:
    from lorabench.runs.preparing import Prepared
    from lorabench.runs.stages import BaseScores, Saved, Scored, Trained
    from lorabench.runs.task import RunTask

CLOCK_TOLERANCE_SECONDS = 30.0
"""Ordinary corrections of the wall clock stay below this."""


@dataclass
class Draft:
    """One run's record as far as it is known; a failure keeps what was measured before it."""

    task: RunTask
    environment: Environment
    previous: RunRecord | None
    """Of an earlier attempt."""
    started_at: str = field(default_factory=provenance.now)
    started: float = field(default_factory=time.perf_counter)
    stage: str = "begin"
    """Where the run is, in a word."""
    notes: list[str] = field(default_factory=list)
    prepared: Prepared | None = None
    base: BaseScores | None = None
    adapter: AdapterFacts | None = None
    trained: Trained | None = None
    scored: Scored | None = None
    saved: Saved | None = None
    rungs: tuple[Rung, ...] = ()
    record: RunRecord | None = None
    """Set once the run has finished; nothing that goes wrong afterwards takes that back."""
    _clock: float = field(default_factory=lambda: time.time() - _steady_clock())

    @property
    def attempt(self) -> int:
        """1 for the first time the run is tried; a run that goes on is the same attempt."""
        return 1 if self.previous is None else self.previous.attempt + (not self.previous.goes_on)

    def finish(self, status: Status, reason: str | None, *, environment_failed: bool = False) -> RunRecord:
        """The record, without secrets."""
        moved = time.time() - _steady_clock() - self._clock
        if abs(moved) > CLOCK_TOLERANCE_SECONDS:
            self.notes.append(f"the machine's clock was moved by {moved:+.0f} s during the run; no duration uses it")
        task, prepared, base, trained, scored = self.task, self.prepared, self.base, self.trained, self.scored
        adapter, saved = self.adapter, self.saved
        if adapter is not None and saved is not None:
            adapter = adapter.model_copy(update={"adapter_bytes": saved.adapter_bytes})
        num_test_scorings = 0 if self.previous is None else self.previous.num_test_scorings
        return RunRecord(
            run_id=task.run_id,
            status=status,
            status_reason=None if reason is None else without_secrets(reason),
            environment_failed=environment_failed,
            attempt=self.attempt,
            num_resumed=0 if trained is None else trained.position.num_resumed,
            num_skipped_steps=0 if trained is None else trained.position.num_skipped_steps,
            experiment=task.experiment,
            question=without_secrets(task.question),
            spec=task.spec,
            references={key: without_secrets(reference) for key, reference in task.references.items()},
            model=None if prepared is None else prepared.model,
            dataset=None if prepared is None else prepared.dataset,
            conversations=None if prepared is None else prepared.conversations,
            adapter=adapter,
            budget=None if prepared is None else prepared.budget,
            base_validation=None if base is None else base.validation.total(),
            base_test=None if base is None else base.test.total(),
            validation=None if scored is None else scored.validation,
            test=None if scored is None else scored.test,
            num_test_scorings=num_test_scorings + (scored is not None and scored.test is not None),
            evaluations=() if trained is None else trained.evaluations,
            search=task.search,
            rungs=self.rungs,
            last_training_loss=None if trained is None else trained.position.smoothed_loss,
            best_step=None if trained is None else trained.best_step,
            speed=None if trained is None else trained.speed,
            environment=self.environment if trained is None else _at_work(self.environment, trained.gpu_clock_mhz),
            notes=tuple(map(without_secrets, dict.fromkeys(self.notes))),
            started_at=self.started_at,
            finished_at=provenance.now(),
            files={} if saved is None else saved.files,
        )


def _at_work(environment: Environment, clock_mhz: int | None) -> Environment:
    """With the clock of a GPU that has just trained, rather than of one that waited."""
    if environment.gpu is None or clock_mhz is None:
        return environment
    return environment.model_copy(update={"gpu": environment.gpu.model_copy(update={"clock_mhz": clock_mhz})})


def _steady_clock() -> float:
    """Seconds that nobody can set, sleep of the machine included where the system counts it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
