"""Runs that have paused at a rung, in memory: each adapter stays on a base of its own, over the weights of all.

So a run goes on without its adapter being made and its checkpoint being read anew. The checkpoint is on disk all the
same: a run is taken from memory only where the latest one on disk is the one that it left, and from disk elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch

from lorabench.methods.adapter import Adapter
from lorabench.methods.registry import method_of
from lorabench.runs.task import RunTask
from lorabench.training.checkpoints import Checkpoints, State

SHARE_OF_MEMORY = 1 / 8
"""Of what the device has for this process: at most so much is kept."""


def adapts_beside(task: RunTask) -> bool:
    """Whether the run's adapter leaves the base's weights alone, so that others can be on them: plain LoRA."""
    spec = task.spec
    return (
        method_of(spec.adapter).shares_passes
        and getattr(spec.adapter, "modules_to_save", None) is None
        and spec.quantization == "none"
        and task.num_devices == 1
    )


@dataclass
class Held:
    """An adapter, and what the run's latest checkpoint holds."""

    adapter: Adapter
    state: State | None = None
    """None: it is on disk alone."""

    def whole(self, checkpoints: Checkpoints) -> Checkpoints:
        """The run's own checkpoints up to its end, taken from here where they are here."""
        return replace(checkpoints, recall=self._hand_over)

    def trunk(self, checkpoints: Checkpoints) -> Checkpoints:
        """The run's own checkpoints, taken from here where they are here, and kept."""
        return replace(checkpoints, keep=self._keep, recall=self._hand_over)

    def branch(self, checkpoints: Checkpoints) -> Checkpoints:
        """Those of a rung, which begins with a copy of what the run itself goes on from."""
        return replace(checkpoints, recall=self._copy)

    def tensors(self) -> Iterator[torch.Tensor]:
        """All that is kept."""
        yield from self.adapter.parameters
        values = () if self.state is None else self.state.values.values()
        yield from (value for value in values if isinstance(value, torch.Tensor))

    def _keep(self, state: State) -> None:
        self.state = state

    def _hand_over(self, manifest: bytes) -> State | None:
        """The loop trains on with these very tensors, so they are no longer a checkpoint's."""
        state, self.state = self.state, None
        return state if state is not None and state.manifest == manifest else None

    def _copy(self, manifest: bytes) -> State | None:
        if self.state is None or self.state.manifest != manifest:
            return None
        values = {
            name: value.clone() if isinstance(value, torch.Tensor) else value
            for name, value in self.state.values.items()
        }
        return replace(self.state, values=values)


@dataclass
class Keeper:
    """Paused runs by id, as many as there is room for; the others go on from disk."""

    max_bytes: int
    _held: dict[str, Held] = field(default_factory=dict)

    def put(self, run_id: str, held: Held) -> None:
        """Keep a run that pauses, where there is room and its state is there."""
        num_bytes = sum(map(_num_bytes, held.tensors()))
        if held.state is not None and self.num_bytes() + num_bytes <= self.max_bytes:
            self._held[run_id] = held

    def take(self, run_id: str, manifest: bytes | None) -> Held | None:
        """The run as it paused, unless its latest checkpoint is another one by now; it is kept here no longer."""
        held = self._held.pop(run_id, None)
        return held if held is not None and held.state is not None and held.state.manifest == manifest else None

    def num_bytes(self, device_type: str | None = None) -> int:
        """That are kept, on devices of a type or on all."""
        return sum(
            _num_bytes(tensor)
            for held in self._held.values()
            for tensor in held.tensors()
            if device_type in (None, tensor.device.type)
        )


def _num_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
