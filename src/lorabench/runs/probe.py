"""How many runs in one pass pay: a few passes of 1, 2, 4 and 8 runs over the base at hand, timed in turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lorabench.core.device import Device
from lorabench.core.out_of_memory import is_out_of_memory
from lorabench.experiment.steps import micro_batch_size
from lorabench.methods.attach import attach
from lorabench.models.base import FrozenBase
from lorabench.runs.task import RunTask
from lorabench.tokens.packing import PackedBatch, make_batch, stream_rows
from lorabench.training.meeting import Meeting, Member, Wanted

COUNTS = (1, 2, 4, 8)
NUM_ROUNDS = 2
"""After those that warm up; the quickest pass of each count is taken."""
NUM_WARMING = {"cpu": 1, "cuda": 3}
"""On a GPU the third pass alone is captured as a graph, which runs from then on."""
WORTH_IT = 0.95
"""Of the time that a token takes alone: at most so much, or runs are trained one after the other."""


@dataclass(frozen=True)
class Probe:
    """Seconds a token, by the number of runs in a pass."""

    seconds: dict[int, float]

    @property
    def shares(self) -> dict[int, float]:
        """Of the time that a token takes alone."""
        return {count: taken / self.seconds[1] for count, taken in self.seconds.items() if count > 1}

    @property
    def best(self) -> int:
        """How many runs to train at once; 1 where it does not pay."""
        count = min(self.shares, key=self.shares.__getitem__, default=1)
        return count if count > 1 and self.shares[count] <= WORTH_IT else 1

    def sentence(self, task: RunTask) -> str:
        """For people: what was measured, and what follows."""
        counts, shares = ", ".join(map(str, self.shares)), ", ".join(f"{share:.2f}" for share in self.shares.values())
        chosen = f"{self.best} runs at once" if self.best > 1 else "that does not pay, so one run after the other"
        return (
            f"side by side: on {task.spec.model}, {task.spec.training.context_length} tokens a row, {counts} runs in "
            f"one pass take {shares} of the time that a token takes alone: {chosen}"
        )


def probe(base: FrozenBase, tasks: Sequence[RunTask], device: Device) -> Probe:
    """Time passes of the tasks' runs at their own batch sizes, in random tokens; what does not fit is left out."""
    most = max(count for count in COUNTS if count <= len(tasks))
    meeting = Meeting(most)
    members = [Member(base, meeting, number) for number in range(most)]
    adapters = [attach(member, task.spec.adapter, seed=0) for member, task in zip(members, tasks, strict=False)]
    wanted = [_wanted(base, task, device) for task in tasks[:most]]
    seconds: dict[int, float] = {}
    try:
        warming = NUM_WARMING.get(device.type, 1)
        for number in range(warming + NUM_ROUNDS):
            for count in [count for count in COUNTS if count <= most]:
                started = time.perf_counter()
                meeting.pass_over(dict(enumerate(wanted[:count])))
                base.synchronize()
                num_tokens = sum(len(own.batch.input_ids) for own in wanted[:count])
                taken = (time.perf_counter() - started) / num_tokens
                seconds[count] = min(taken, seconds.get(count, taken)) if number > warming else taken
                for adapter in adapters:
                    for parameter in adapter.parameters:
                        parameter.grad = None
    except Exception as error:
        if not is_out_of_memory(error) or 1 not in seconds:
            raise
    finally:
        for adapter in adapters:
            adapter.detach()
        base.release_memory()
    return Probe(seconds)


def _wanted(base: FrozenBase, task: RunTask, device: Device) -> Wanted:
    settings = task.spec.training
    rows = micro_batch_size(settings, device)
    batch = _random_rows(base, rows, settings.context_length)
    return Wanted(batch, list(range(rows)), batch.num_scored, torch.amp.GradScaler(enabled=False))


def _random_rows(base: FrozenBase, num_rows: int, context_length: int) -> PackedBatch:
    """Full rows of one document each."""
    tokens = np.random.default_rng(0).integers(0, base.vocabulary_size, (num_rows, context_length)).astype(np.int32)
    rows = stream_rows(list(tokens), list(range(num_rows)), prefix=0, context_length=context_length)
    return make_batch(list(rows))
