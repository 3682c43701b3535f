"""What the training loop of a run tells trackers, view and record while it goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from lorabench.core.errors import DivergedError
from lorabench.methods.adapter import Adapter
from lorabench.records.schema import Scores
from lorabench.runs.context import RunContext
from lorabench.runs.group import GroupWork
from lorabench.runs.task import RunTask
from lorabench.scoring.documents import DocumentScores
from lorabench.trackers.base import evaluation_values
from lorabench.training.checkpoints import Position
from lorabench.training.loop import Hooks


class TrainingReport:
    """Shows and tracks the steps of one run, and scores validation when the loop asks for it."""

    def __init__(
        self,
        task: RunTask,
        context: RunContext,
        work: GroupWork,
        adapter: Adapter,
        num_steps: int,
        note: Callable[[str], None],
    ) -> None:
        self._task = task
        self._context = context
        self._work = work
        self._adapter = adapter
        self._num_steps = num_steps
        self._note = note
        self._last_step = 0
        self.validation: DocumentScores | None = None
        """Of the last validation."""
        self.began_at = time.perf_counter()
        """When the first step could begin."""

    def hooks(self) -> Hooks:
        """For the loop."""
        trackers = self._context.trackers
        return Hooks(
            on_step=self._on_step,
            evaluate=self._evaluate,
            on_evaluation=self._on_evaluation,
            on_start=self._on_start,
            on_checkpoint=trackers.metrics.sync,
            should_stop=self._context.should_stop,
        )

    def rung_hooks(self) -> Hooks:
        """For the part of a rung that is not the run's own: shown, and not part of the run's curve."""
        return Hooks(
            on_step=self._show_step,
            evaluate=self._evaluate,
            on_evaluation=lambda evaluation: None,
            on_start=lambda position, problems: self._tell(problems),
            on_checkpoint=lambda: None,
            should_stop=self._context.should_stop,
        )

    def validated(self) -> DocumentScores:
        """Validation of the adapter as it is now: as it was just scored, or scored now."""
        if self.validation is None:
            self._evaluate()
        assert self.validation is not None
        return self.validation

    def _tell(self, problems: list[str]) -> None:
        for problem in problems:
            self._note(problem)
            self._context.view.message(problem)

    def _on_start(self, position: Position, problems: list[str]) -> None:
        view, trackers = self._context.view, self._context.trackers
        self.began_at = time.perf_counter()
        self._tell(problems)
        trackers.resume_at(position.steps_done)
        for evaluation in position.evaluations:  # is there already, unless a kill came between it and its step
            self._on_evaluation(evaluation)
        if position.steps_done and self._task.stop_reason is None:
            view.message(f"{self._task.run_id}: going on after step {position.steps_done} of {self._num_steps}")

    def _on_step(self, values: Mapping[str, Any]) -> None:
        self._context.trackers.log_step(values)
        self._show_step(values)

    def _show_step(self, values: Mapping[str, Any]) -> None:
        self._last_step = values["step"]
        self._context.view.step(values["step"], self._num_steps, values["smoothed_loss"], values["tokens_per_second"])

    def _evaluate(self) -> tuple[dict[str, Any], int]:
        spec = self._task.spec
        self._context.view.phase("validation")
        with self._adapter.as_saved():
            self.validation = self._work.score(spec.dataset, "validation", spec)
        self._context.view.phase("training")
        if not math.isfinite(self.validation.nll.sum()):
            raise DivergedError(self._last_step, "the validation loss")
        scores = self.validation.total()
        return scores.model_dump(), scores.num_tokens

    def _on_evaluation(self, evaluation: Mapping[str, Any]) -> None:
        scores = Scores(**evaluation["validation"])
        values = evaluation_values(evaluation["step"], evaluation["train_tokens_seen"], scores)
        self._context.trackers.log_evaluation(values)
