"""One run on several devices: each rank computes its share of a step's rows, and all of them take the same step.

Ranks are processes. They meet in *exchanges*, all of one form, in which each says whether it goes on. Whatever takes a
rank out of its work is told in the exchange that the others come to next, so that none waits for one that has left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from lorabench.core.errors import RunError
from lorabench.core.out_of_memory import is_out_of_memory
from lorabench.experiment.layout import Layout

Item = TypeVar("Item")
_PATIENCE = timedelta(days=30)
"""Nobody waits for a clock: rank 0 may score for hours, and a rank that dies ends the connection."""


class Ranks:
    """The only process of a run: rank 0 of one. Alone, nothing is told and nothing summed."""

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank holds the run: its lease, trackers, checkpoints and record."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's share of what all have."""
        return items if self.size == 1 else items[self.rank :: self.size]

    def begin(self, layout: Layout | None) -> None:
        """Rank 0 tells the others to train from the start, laid out so; None: there is nothing more to do."""

    def of_first(self, value: int) -> int:
        """Rank 0's value."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag of any rank is set."""
        return flag

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss_sum: float) -> float:
        """Give every rank the sum of all gradients; returns the sum of all losses."""
        return loss_sum

    @contextmanager
    def leaving_together(self) -> Iterator[None]:
        """What is raised inside on one rank ends what is inside on all of them."""
        yield


class RankLostError(BaseException):
    """Another rank's process has ended. Nothing more can be done here: whoever started the ranks ends them."""


class BegunError(Exception):
    """Rank 0 has begun anew, or has ended the run, while this rank was at something else."""

    def __init__(self, layout: Layout | None) -> None:
        super().__init__(layout)
        self.layout = layout


class OtherRankError(RunError):
    """Another rank could not go on."""


class OtherRankMemoryError(MemoryError):
    """Memory ran out on another rank."""


class _State(IntEnum):
    GOES_ON = 0
    BEGINS = 1
    OUT_OF_MEMORY = 2
    FAILED = 3
    BEGINS_CHECKPOINTING = 4


class ProcessRanks(Ranks):
    """This process among those of a run, each on a device of its own. All must call the same things in one order."""

    def __init__(self, device: torch.device) -> None:
        """Meet the others, by the addresses that torch's launcher has put into the environment."""
        self._told: Exception | None = None
        backend = "gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl"
        distributed.init_process_group(backend, timeout=_PATIENCE)
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def close(self) -> None:
        """Part from the others."""
        distributed.destroy_process_group()

    def begin(self, layout: Layout | None) -> None:
        state = _State.BEGINS_CHECKPOINTING if layout is not None and layout.checkpointing else _State.BEGINS
        self._exchange(state, 0 if layout is None else layout.rows)

    def wait_for_begin(self) -> Layout | None:
        """Until rank 0 begins: how steps are laid out, None where there is nothing to do."""
        while True:
            try:
                self._exchange(_State.GOES_ON)
            except BegunError as begun:
                return begun.layout

    def of_first(self, value: int) -> int:
        return int(self._agree(value)[0])

    def any(self, flag: bool) -> bool:
        return any(self._agree(flag))

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss_sum: float) -> float:
        flat = _flat_gradients(parameters)
        losses = self._agree(loss_sum)
        with _noticing_death():
            distributed.all_reduce(flat)
        _set_gradients(parameters, flat)
        return sum(losses)

    @contextmanager
    def leaving_together(self) -> Iterator[None]:
        try:
            yield
        except (BegunError, OtherRankError, OtherRankMemoryError):
            raise
        except Exception as error:
            if error is not self._told:
                self._told = error
                self._tell(error)
            raise

    def _tell(self, error: Exception) -> None:
        state = _State.OUT_OF_MEMORY if is_out_of_memory(error) else _State.FAILED
        self._exchange(state, sentence=" ".join(str(error).split()) or type(error).__name__)

    def _agree(self, value: float) -> list[float]:
        """Every rank's value, by rank. Raises where a rank does not go on."""
        states, values, sentences = self._exchange(_State.GOES_ON, value)
        for rank, (state, sentence) in enumerate(zip(states, sentences, strict=True)):
            if state is _State.OUT_OF_MEMORY:
                raise OtherRankMemoryError(f"memory ran out on rank {rank} of {self.size}")
            if state is _State.FAILED:
                raise OtherRankError(sentence if rank == 0 else f"rank {rank} of {self.size}: {sentence}")
        return values

    def _exchange(
        self, state: _State, value: float = 0.0, sentence: str = ""
    ) -> tuple[list[_State], list[float], list[str]]:
        """Every rank's state, value and sentence, by rank. Raises BegunError where rank 0 begins."""
        own = torch.tensor([state, value], dtype=torch.float64)
        gathered = [torch.empty_like(own) for _ in range(self.size)]
        sentences = [""] * self.size
        with _noticing_death():
            distributed.all_gather(gathered, own)
            states = [_State(int(told[0])) for told in gathered]
            if _State.FAILED in states:
                distributed.all_gather_object(sentences, sentence)
        if not self.is_first and states[0] in (_State.BEGINS, _State.BEGINS_CHECKPOINTING):
            rows = int(gathered[0][1])
            raise BegunError(Layout(rows, states[0] is _State.BEGINS_CHECKPOINTING) if rows else None)
        return states, [float(told[1]) for told in gathered], sentences


@contextmanager
def _noticing_death() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RankLostError(str(error)) from None


def _flat_gradients(parameters: Sequence[nn.Parameter]) -> Tensor:
    """All gradients end to end, then for each parameter whether it has one."""
    found = [parameter.grad is not None for parameter in parameters]
    parts = [
        (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).reshape(-1)
        for parameter in parameters
    ]
    return torch.cat([*parts, torch.tensor(found, dtype=parts[0].dtype, device=parts[0].device)])


def _set_gradients(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    """Give parameters their parts of what was summed; one that no rank has a gradient of keeps none."""
    *parts, found = flat.split([*(parameter.numel() for parameter in parameters), len(parameters)])
    for parameter, part, count in zip(parameters, parts, found.tolist(), strict=True):
        parameter.grad = part.view_as(parameter) if count else None
