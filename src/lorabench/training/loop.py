"""The training loop: one function that can be read from top to bottom.

Everything that a step depends on is a function of (settings, seed, step) or lies in the checkpoint, so that a run taken
up again is the run that was never stopped.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lorabench.core.device import read
from lorabench.core.errors import CancelledError, DivergedError
from lorabench.experiment.schema import TrainingSettings
from lorabench.experiment.steps import evaluation_steps, num_shared_steps, num_steps, num_warmup_steps, step_at
from lorabench.fast.dropout import row_seeds
from lorabench.tokens.packing import (
    Marks,
    Prefix,
    Row,
    Tokens,
    document_segments,
    make_batch,
    packed_rows,
    prefix_of,
    stream_rows,
)
from lorabench.training.checkpoints import Checkpoints, Position, load_checkpoint, load_step, save_checkpoint
from lorabench.training.optimization import (
    clip_gradients,
    learning_rate_at,
    make_optimizer,
    make_scaler,
    set_learning_rate,
)
from lorabench.training.optimizers import averaged, finish
from lorabench.training.ranks import Ranks

if TYPE_CHECKING:
    from lorabench.methods.adapter import Adapter
    from lorabench.models.base import FrozenBase

SMOOTHING = 0.9
SMALLEST_SCALE = 1.0
"""Of the loss in fp16: gradients that overflow even so are no longer a matter of their scale."""
NUM_WARMUP_STEPS = 2
"""Steps left out of the speed: the first ones pay for allocation and compilation."""


@dataclass(frozen=True)
class TrainingText:
    """Token ids of the training documents, and the token that starts a segment.

    `marks` are there for conversations: they stay whole, so each fits into a row, and what has a mark is trained on.
    """

    tokens: Sequence[Tokens]
    prefix: Prefix
    marks: Sequence[Marks] | None = None

    @property
    def num_tokens(self) -> int:
        """Targets of one epoch: every token once, or every one with a mark."""
        return sum(map(len, self.tokens)) if self.marks is None else sum(map(np.count_nonzero, self.marks))

    def num_rows(self, context_length: int) -> int:
        """Rows of one epoch, which do not depend on the order of the documents."""
        if self.marks is None:
            return math.ceil(self.num_tokens / context_length)
        return len(self._whole_rows(context_length))

    def rows(self, context_length: int, seed: int, epoch: int) -> list[Row]:
        """The epoch's rows, in an order that depends on seed and epoch alone: of the documents, or of the rows where
        conversations fill them."""
        generator = np.random.default_rng([seed, epoch])
        if self.marks is None:
            order = generator.permutation(len(self.tokens)).tolist()
            prefix = prefix_of(self.prefix, 0)
            return list(stream_rows(self.tokens, order, prefix=prefix, context_length=context_length))
        rows = self._whole_rows(context_length)
        return [rows[place] for place in generator.permutation(len(rows))]

    def _whole_rows(self, context_length: int) -> list[Row]:
        """Raises ValueError where a conversation is longer than a row."""
        if max(map(len, self.tokens)) > context_length:
            raise ValueError("a conversation does not fit into a row")
        examples = zip(self.tokens, self.marks or (), strict=True)
        segments = [
            segment
            for index, (ids, marks) in enumerate(examples)
            for segment in document_segments(index, ids, prefix=self.prefix, context_length=context_length, marks=marks)
        ]
        return packed_rows(segments, context_length)


@dataclass(frozen=True)
class Course:
    """What a run trains from its first step to its last; the same however often it is stopped on the way."""

    settings: TrainingSettings
    seed: int
    micro_batch_size: int
    num_steps: int
    evaluate_after: tuple[int, ...]
    """The steps after which validation is scored."""
    ends_after: int | None = None
    """Of a rung: the schedule ends after so many steps, as though the run did; None: with the run."""

    @classmethod
    def of(
        cls, text: TrainingText, settings: TrainingSettings, *, seed: int, micro_batch_size: int, num_evaluations: int
    ) -> Course:
        """The course over a text; validation is scored `num_evaluations` times, the last time at its end."""
        steps = num_steps(text.num_rows(settings.context_length), settings)
        return cls(settings, seed, micro_batch_size, steps, tuple(evaluation_steps(steps, num_evaluations)))

    def rung(self, share: float) -> Course:
        """The beginning of this course as though it ended after a share of its steps: the same text in the same order.

        Validation is scored at its end alone.
        """
        step = step_at(self.num_steps, share)
        return replace(self, ends_after=step, evaluate_after=(step,))

    @property
    def last_step(self) -> int:
        """The step with which the schedule ends."""
        return self.num_steps if self.ends_after is None else self.ends_after

    @property
    def num_warmup(self) -> int:
        """Those of the whole run, where its rungs begin as it does."""
        is_shared = self.settings.schedule in ("wsd", "constant")
        return num_warmup_steps(self.num_steps if is_shared else self.last_step, self.settings)

    @property
    def num_shared_steps(self) -> int:
        """The first steps of a rung that are the first steps of the whole run."""
        return num_shared_steps(self.last_step, self.num_warmup, self.settings)


@dataclass(frozen=True)
class Hooks:
    """What the loop tells and asks its surroundings."""

    on_step: Callable[[dict[str, Any]], None]
    evaluate: Callable[[], tuple[dict[str, Any], int]]
    """Scores validation; returns the scores as plain values and the number of tokens scored."""
    on_evaluation: Callable[[dict[str, Any]], None]
    on_start: Callable[[Position, list[str]], None]
    """Told where the run starts (after `steps_done` steps) and which checkpoints were set aside, and why."""
    on_checkpoint: Callable[[], None]
    """Make what was recorded so far safe on disk before this returns: a checkpoint follows."""
    should_stop: Callable[[], bool]


def train(
    base: FrozenBase,
    adapter: Adapter,
    text: TrainingText,
    course: Course,
    checkpoints: Checkpoints,
    hooks: Hooks,
    until_step: int | None = None,
    ranks: Ranks | None = None,
) -> Position:
    """Train the attached adapter and return where it stands: at the end of the course, or after `until_step` steps.

    Takes up the latest checkpoint that can be used and leaves one where it ends, from which a later call goes on as if
    there had been one call. A step's loss is the mean over the scored tokens of its whole batch, whatever the
    micro-batch and however many ranks share its rows; rank 0 alone calls the hooks, `should_stop` apart, and writes.
    Raises DivergedError at the first step whose loss or gradient is not finite, and CancelledError after a checkpoint
    when `hooks.should_stop` says so. In fp16 a step whose gradients overflow leaves the adapter as it was, is counted,
    and halves the scale of the losses after it.
    """
    ranks = ranks or Ranks()
    with ranks.leaving_together():
        return _train(base, adapter, text, course, checkpoints, hooks, until_step, ranks)


def _train(
    base: FrozenBase,
    adapter: Adapter,
    text: TrainingText,
    course: Course,
    checkpoints: Checkpoints,
    hooks: Hooks,
    until_step: int | None,
    ranks: Ranks,
) -> Position:
    """See `train`."""
    settings, steps = course.settings, course.num_steps
    parameters = dict(adapter.named_parameters())
    optimizer, scaler = make_optimizer(adapter, settings), make_scaler(base)
    torch.manual_seed(course.seed)
    adapter.set_num_steps(steps)
    position, problems = _take_up(checkpoints, parameters | adapter.extra_state(), optimizer, ranks)
    if not position.steps_done:
        adapter.begin(_first_rows(text, course))
    if position.loss_scale:
        scaler.load_state_dict(position.loss_scale)
    if ranks.is_first:
        hooks.on_start(position, problems)

    first, last = position.steps_done, course.last_step if until_step is None else min(until_step, course.last_step)
    saved_at = time.monotonic()
    to_do, to_send = itertools.tee(_steps(text, course, first, last, ranks))
    batches = (base.send(make_batch(rows)) for work in to_send for rows, _ in work.parts)
    sent = deque(itertools.islice(batches, 1))
    for work in to_do:
        started = base.clock()
        step, num_scored = work.step, work.num_scored
        losses: list[torch.Tensor] = []
        for _, seeds in work.parts:
            losses.append(base.add_gradients(sent.popleft(), seeds, num_scored, scaler))
            sent.extend(itertools.islice(batches, 1))
        agreed = None
        if ranks.size > 1:
            agreed = ranks.sum_gradients(list(parameters.values()), _sum(map(float, losses)))
        scaler.unscale_(optimizer)
        adapter.before_step(step + 1)
        norm = clip_gradients(list(parameters.values()), settings.max_grad_norm)
        learning_rate = learning_rate_at(step, course.last_step, settings, course.num_warmup)
        set_learning_rate(optimizer, learning_rate)
        scale = scaler.scale(torch.ones_like(norm))
        scaler.step(optimizer)
        scaler.update()
        *values, gradient_norm, loss_scale = read([*losses, norm, scale])  # the one wait for a GPU
        loss_mean = (_sum(values) if agreed is None else agreed) / num_scored
        overflows = not math.isfinite(gradient_norm)
        if not math.isfinite(loss_mean):
            raise DivergedError(step + 1, "the loss")
        if overflows and not (scaler.is_enabled() and loss_scale > SMALLEST_SCALE):
            raise DivergedError(step + 1, "the gradient")
        position.num_skipped_steps += overflows
        if not overflows:
            adapter.after_step(step + 1)
        optimizer.zero_grad(set_to_none=True)
        seconds = base.clock() - started

        position.steps_done = step + 1
        position.train_tokens += num_scored
        position.train_seconds += seconds
        position.step_seconds.append(seconds)
        position.step_tokens.append(num_scored)
        previous = position.smoothed_loss
        position.smoothed_loss = loss_mean if previous is None else SMOOTHING * previous + (1.0 - SMOOTHING) * loss_mean
        if ranks.is_first:
            hooks.on_step(
                {
                    "step": step + 1,
                    "loss": loss_mean,
                    "smoothed_loss": position.smoothed_loss,
                    "learning_rate": learning_rate,
                    "gradient_norm": gradient_norm,
                    "tokens_per_second": num_scored / seconds,
                    "train_tokens": position.train_tokens,
                    "seconds": seconds,
                }
                | ({"loss_scale": loss_scale} if scaler.is_enabled() else {})
            )
        if ranks.is_first and step + 1 in course.evaluate_after:
            evaluation_started = base.clock()
            with averaged(optimizer):
                scores, num_evaluated = hooks.evaluate()
            position.evaluation_seconds += base.clock() - evaluation_started
            position.evaluation_tokens += num_evaluated
            position.evaluations.append(
                {"step": step + 1, "train_tokens_seen": position.train_tokens, "validation": scores}
            )
            hooks.on_evaluation(position.evaluations[-1])
        stopping = ranks.any(hooks.should_stop())
        is_due = stopping or time.monotonic() - saved_at >= checkpoints.seconds
        if ranks.is_first and step + 1 < last and is_due:
            hooks.on_checkpoint()
            position.loss_scale = scaler.state_dict()
            save_checkpoint(
                checkpoints.folder, position, parameters | adapter.extra_state(), optimizer, checkpoints.key
            )
            saved_at = time.monotonic()
        if step + 1 < last and stopping:
            raise CancelledError(f"stopped after step {step + 1} of {steps}")
    if ranks.is_first:
        hooks.on_checkpoint()
        if position.steps_done > first:
            position.loss_scale = scaler.state_dict()
            save_checkpoint(
                checkpoints.folder,
                position,
                parameters | adapter.extra_state(),
                optimizer,
                checkpoints.key,
                checkpoints.keep,
            )
    finish(optimizer)
    return position


@dataclass(frozen=True)
class _Work:
    """What this rank computes of one step."""

    step: int
    num_scored: int
    """Targets of the whole batch, other ranks' rows included."""
    parts: list[tuple[Sequence[Row], Sequence[int]]]
    """Rows that are computed at once, and the seeds of their dropout."""


def _steps(text: TrainingText, course: Course, first: int, last: int, ranks: Ranks) -> Iterator[_Work]:
    """The course's steps from `first` to `last`."""
    settings, size = course.settings, course.micro_batch_size
    steps_per_epoch = course.num_steps // settings.epochs
    epoch, rows = -1, list[Row]()
    for step in range(first, last):
        if step // steps_per_epoch != epoch:
            epoch = step // steps_per_epoch
            rows = text.rows(settings.context_length, course.seed, epoch)
        start = (step % steps_per_epoch) * settings.batch_size
        whole = rows[start : start + settings.batch_size]
        own, seeds = ranks.share(whole), ranks.share(row_seeds(course.seed, step, len(whole)))
        parts = [(own[index : index + size], seeds[index : index + size]) for index in range(0, len(own), size)]
        yield _Work(step, sum(segment.num_scored for row in whole for segment in row), parts)


def _first_rows(text: TrainingText, course: Course) -> Iterator[Row]:
    """The first epoch's rows in their order, laid out when the first one is asked for."""
    yield from text.rows(course.settings.context_length, course.seed, epoch=0)


def _take_up(
    checkpoints: Checkpoints, tensors: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, ranks: Ranks
) -> tuple[Position, list[str]]:
    """Take up the checkpoint that rank 0 can use, on every rank; returns what could not be taken up too."""
    position, problems = None, list[str]()
    if ranks.is_first:
        limit, recall = checkpoints.num_recorded_steps, checkpoints.recall
        position, problems = load_checkpoint(checkpoints.folder, tensors, optimizer, checkpoints.key, limit, recall)
    chosen = ranks.of_first(0 if position is None else position.steps_done)
    if chosen and not ranks.is_first:
        position = load_step(checkpoints.folder, chosen, tensors, optimizer, checkpoints.key)
    if position is None:
        return Position(), problems
    position.num_resumed += 1
    return position, problems


def _sum(values: Iterable[float]) -> float:
    """One after the other, as every version of Python has to."""
    total = 0.0
    for value in values:
        total += value
    return total


def tokens_per_second(position: Position) -> tuple[float | None, str]:
    """The one definition of training speed, and why there is none if there is none.

    Scored (non-padding) tokens ÷ seconds, over all steps after the warm-up.
    """
    counted = slice(NUM_WARMUP_STEPS, None)
    seconds = sum(position.step_seconds[counted])
    if seconds <= 0.0:
        return None, f"the run has no step after the {NUM_WARMUP_STEPS} of warm-up"
    return sum(position.step_tokens[counted]) / seconds, ""
