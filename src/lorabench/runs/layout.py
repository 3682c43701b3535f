"""How a run's steps are laid out on the device that does it: chosen before the first, smaller where memory runs out."""

from __future__ import annotations

from collections.abc import Callable

from lorabench.core.device import memory_for_this_process
from lorabench.core.errors import ModelError
from lorabench.core.formatting import size
from lorabench.core.storage import recall, remember
from lorabench.experiment.layout import (
    Layout,
    check_checkpointing,
    fitting,
    remember_rows,
    rows_at_most,
    workload_of,
)
from lorabench.experiment.memory import estimate_memory
from lorabench.methods.registry import method_of
from lorabench.models.shape import read_model_shape
from lorabench.runs.context import RunContext
from lorabench.runs.group import GroupWork
from lorabench.runs.task import RunTask


class Layouts:
    """Those that a run tries, one after the other; `note` is told what the record should say of them."""

    def __init__(self, task: RunTask, context: RunContext, work: GroupWork, note: Callable[[str], None]) -> None:
        self._task, self._context, self._work, self._note = task, context, work, note
        self._asked = check_checkpointing(task.spec, task.gradient_checkpointing)
        self._may_shrink = task.spec.training.micro_batch_size is None
        self._memory_bytes = memory_for_this_process(context.device)
        self._path = context.store.checkpoints_dir(task.run_id) / "layout.json"
        self._notes: list[str] = []
        self.tried = [self._begun() or self._fitting()]

    @property
    def current(self) -> Layout:
        """The one that is tried now."""
        return self.tried[-1]

    def _begun(self) -> Layout | None:
        """As the run began where it goes on, so that its figures stay the same to the last bit."""
        begun = recall(self._path)
        if begun is None or self._asked not in ("auto", begun["checkpointing"]):
            return None
        for note in begun["notes"]:
            self._say(note)
        return Layout(begun["rows"], begun["checkpointing"])

    def _fitting(self) -> Layout:
        """What is expected to fit into what the device has for this process."""
        spec = self._task.spec
        rows = rows_at_most(spec, self._context.device, self._memory_bytes, self._task.num_devices)
        most = Layout(rows, self._asked is True)
        shape = read_model_shape(self._work.shared.location.folder)
        targets = tuple(method_of(spec.adapter).resolve_targets(shape, spec.adapter))  # plans may know the hub's less
        wanted = workload_of(spec, targets, most)
        chosen = fitting(shape, wanted, self._memory_bytes, self._asked, fewer_rows=self._may_shrink)
        layout = Layout(chosen.rows_at_once, chosen.checkpointing)
        if layout != most:
            self._say(
                f"a micro-batch of {layout}: about {size(estimate_memory(shape, wanted))} are expected at {most}, and "
                f"{size(self._memory_bytes)} are there"
            )
        return layout

    def begin(self) -> None:
        """Have the base compute as the current one says, and keep it for when the run is gone on with.

        Call with the adapter attached. Raises ModelError for a model whose layers cannot be checkpointed.
        """
        base, layout = self._work.shared.base, self.current
        if layout.checkpointing and not base.can_checkpoint:
            if self._asked is True:
                raise ModelError(
                    f"training.gradient_checkpointing: {self._task.spec.model} has no layers that Transformers can "
                    "checkpoint; give auto or false"
                )
            layout = self.tried[-1] = Layout(layout.rows)
        base.checkpointing = layout.checkpointing
        remember(self._path, {"rows": layout.rows, "checkpointing": layout.checkpointing, "notes": self._notes})

    def shrink(self) -> bool:
        """Go on to a smaller one after memory ran out; False: there is none."""
        smaller = self.current.smaller(self._asked if self._work.shared.base.can_checkpoint else False)
        if smaller is None:
            return False
        how = "" if smaller.checkpointing else " with accumulation"
        self._say(f"memory ran out at a micro-batch of {self.current}; done again at {smaller}{how}")
        self.tried.append(smaller)
        self._work.shared.base.release_memory()
        return True

    def remember(self) -> None:
        """The run has trained: those like it begin with as many rows here, where more did not fit."""
        if len(self.tried) > 1 and self._may_shrink:
            remember_rows(self._task.spec, self._context.device, self._memory_bytes, self.current.rows)

    def _say(self, note: str) -> None:
        self._notes.append(note)
        self._note(note)
