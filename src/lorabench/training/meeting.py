"""Runs that train side by side: each in a thread of its own, one of which runs at a time, and all meet at every pass.

A run's own loop is what it is alone. Only where it would pass its batch through the base it waits until the others want
that too; then one pass is made over the rows of all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lorabench.core.device import random_state, set_random_state, synchronize
from lorabench.fast.dropout import Draws
from lorabench.fast.forward import Decoder, Uploaded
from lorabench.fast.known import NotFast
from lorabench.fast.together import SharedPass
from lorabench.models.base import FrozenBase
from lorabench.tokens.packing import PackedBatch


@dataclass(frozen=True)
class Wanted:
    """What a run wants of a pass."""

    batch: PackedBatch
    row_seeds: Sequence[int]
    num_scored: int
    scaler: torch.amp.GradScaler


class Member(FrozenBase):
    """The base as one of the runs of a meeting has it: the weights of all, with an adapter of its own."""

    def __init__(self, base: FrozenBase, meeting: Meeting, number: int) -> None:
        super().__init__(base.model_for_another(), base.device, base.precision)
        self.folder = base.folder
        self.number = number
        self._meeting = meeting
        meeting.members[number] = self

    def send(self, batch: PackedBatch) -> PackedBatch:
        """It travels with those of the others."""
        return batch

    def clock(self) -> float:
        """Seconds of this run's own work, and its share by tokens of the passes that are shared."""
        return self._meeting.seconds(self.number)

    def add_gradients(
        self, batch: PackedBatch | Uploaded, row_seeds: Sequence[int], num_scored: int, scaler: torch.amp.GradScaler
    ) -> Tensor:
        """As of a base alone, once the other runs want that too. What goes wrong in the pass is raised by all."""
        assert isinstance(batch, PackedBatch)
        self.check_tokens(batch)
        return self._meeting.add_gradients(self.number, Wanted(batch, row_seeds, num_scored, scaler))

    def alone(self, wanted: Wanted) -> Tensor:
        """The pass of this run by itself, which may be a CUDA graph."""
        sent = super().send(wanted.batch)
        return super().add_gradients(sent, wanted.row_seeds, wanted.num_scored, wanted.scaler)

    def draws(self, wanted: Wanted) -> Draws | None:
        """Of its dropout, if it has any."""
        return Draws.of_rows(wanted.batch, wanted.row_seeds, self.device) if self.dropout_modules else None


class Meeting:
    """`size` threads, of which one runs at a time: the one whose turn it is."""

    def __init__(self, size: int) -> None:
        self.members: dict[int, Member] = {}
        self.interrupted = False
        """Whether all are to be left as soon as they have their turn."""
        self._turns = threading.Condition()
        self._turn: int | None = 0
        self._present = set(range(size))
        self._wanted: dict[int, Wanted] = {}
        self._made: dict[int, Tensor | Exception] = {}
        self._seconds = [0.0] * size
        self._since = 0.0
        self._passes: dict[tuple[int, ...], SharedPass | None] = {}

    @contextmanager
    def attended(self, number: int) -> Iterator[None]:
        """Inside, this thread does the run of that number; it waits for its turn first."""
        try:
            self._wait(number)
            yield
        finally:
            self._present.discard(number)
            self._hand_on(number)

    def seconds(self, number: int) -> float:
        """That the run of this thread, whose turn it is, has worked."""
        return self._seconds[number] + time.perf_counter() - self._since

    def add_gradients(self, number: int, wanted: Wanted) -> Tensor:
        """Wait until all that are present want a pass, and make it; returns the run's loss."""
        device = self.members[number].device
        states = torch.get_rng_state(), random_state(device)
        self._wanted[number] = wanted
        self._hand_on(number)
        self._wait(number)
        torch.set_rng_state(states[0])
        if states[1] is not None:
            set_random_state(device, states[1])
        made = self._made.pop(number)
        if isinstance(made, Exception):
            raise made
        return made

    def _wait(self, number: int) -> None:
        with self._turns:
            self._turns.wait_for(lambda: self._turn == number)
        self._since = time.perf_counter()
        if self.interrupted:
            self._made.pop(number, None)
            raise KeyboardInterrupt

    def _hand_on(self, number: int) -> None:
        """Give the turn to the next that can go on; once all wait for a pass, make it first."""
        self._seconds[number] += time.perf_counter() - self._since
        if self._present and self._present == self._wanted.keys():
            self._make_pass()
        ready = self._present - self._wanted.keys()
        with self._turns:
            self._turn = min(ready, default=None)
            self._turns.notify_all()

    def _make_pass(self) -> None:
        wanted, self._wanted = dict(sorted(self._wanted.items())), {}
        started = time.perf_counter()
        try:
            self._made |= self.pass_over(wanted)
            synchronize(self.members[min(wanted)].device)
        except Exception as error:
            error.__traceback__ = None  # it would keep what the pass has allocated
            self._made |= dict.fromkeys(wanted, error)
        taken = time.perf_counter() - started
        sizes = {number: len(own.batch.input_ids) for number, own in wanted.items()}
        for number, size in sizes.items():
            self._seconds[number] += taken * size / sum(sizes.values())

    def pass_over(self, wanted: dict[int, Wanted]) -> dict[int, Tensor]:
        """One pass for these runs: adds their gradients and returns their losses."""
        shared = self._shared([self.members[number] for number in wanted])
        if shared is None:
            return {number: self.members[number].alone(own) for number, own in wanted.items()}
        for number in wanted:
            self.members[number].num_beside = max(self.members[number].num_beside, len(wanted) - 1)
        draws = [self.members[number].draws(own) for number, own in wanted.items()]
        losses = shared.losses([own.batch for own in wanted.values()], draws)
        scored = torch.tensor([float(own.num_scored) for own in wanted.values()], device=losses.device)
        parameters = [parameter for number in wanted for parameter in self.members[number].trained]
        gradients = torch.autograd.grad(losses, parameters, 1.0 / scored)
        if not torch.stack(torch._foreach_norm(gradients)).isfinite().all():
            # A run that diverges would take those beside it along: what a mask sets to zero stays NaN.
            return {number: self.members[number].alone(own) for number, own in wanted.items()}
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return dict(zip(wanted, losses.detach().unbind(), strict=True))

    def _shared(self, members: Sequence[Member]) -> SharedPass | None:
        """Of these; None where there is but one, or where the fast path does not cover them together."""
        decoders = [member.decoder for member in members if member.decoder is not None and not member.checkpointing]
        if len(decoders) < max(2, len(members)):
            return None
        key = tuple(map(id, decoders))
        if key not in self._passes:
            self._passes = {key: _shared_pass(decoders)}
        return self._passes[key]


def _shared_pass(decoders: Sequence[Decoder]) -> SharedPass | None:
    try:
        return SharedPass(decoders)
    except NotFast:
        return None
