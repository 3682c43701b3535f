"""What is trained on a base, from its attachment until it is taken off."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorabench.methods.portable import BaseReference
from lorabench.methods.settings import AdapterSettings
from lorabench.methods.targets import require_equal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lorabench.models.base import FrozenBase
    from lorabench.tokens.packing import Row


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that the optimizer treats alike."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    """Their learning rate ÷ the run's."""
    weight_decay: float | None = None
    """None: the run's."""


class Adapter(ABC):
    """An attached adapter. Its trainable parameters are those of `trained_model` that require a gradient."""

    def __init__(self, base: FrozenBase, settings: AdapterSettings) -> None:
        self.base = base
        self.settings = settings

    @property
    def trained_model(self) -> Any:
        """The module that holds the trainable parameters under the names that checkpoints use."""
        return self.base.model

    @property
    def module_names(self) -> list[str]:
        """Full paths of the modules that carry an adapter, read from the model as it is."""
        return []

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Trainable parameters with their names, in a fixed order."""
        return ((name, weight) for name, weight in self.trained_model.named_parameters() if weight.requires_grad)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Trainable parameters, float32."""
        return [parameter for _, parameter in self.named_parameters()]

    @property
    def num_trainable(self) -> int:
        """Trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters)

    def require_as_planned(self, target_modules: Iterable[str], num_trainable: int) -> None:
        """Raise ModelError where what is attached is not what was planned, by full path and in number."""
        require_equal(target_modules, num_trainable, self.module_names, self.num_trainable)

    def optimizer_groups(self) -> list[ParameterGroup]:
        """The trainable parameters, each in one group."""
        return [ParameterGroup(self.parameters)]

    def set_num_steps(self, num_steps: int) -> None:  # noqa: B027 - most methods do nothing here
        """Called before the first step, also of a run that is taken up again; the whole run has `num_steps` steps.

        Raises ConfigError where that is too few.
        """

    def begin(self, rows: Iterator[Row]) -> None:  # noqa: B027 - most methods start from their settings alone
        """Called once before the first step of a run that begins anew, with the rows of its first epoch in their order.

        For starts that depend on the training text. A run that is taken up again has it in its checkpoint. Each of
        several ranks is given the same rows and has to come to the same weights.
        """

    def before_step(self, step: int) -> None:  # noqa: B027 - most methods do nothing here
        """Called before the optimizer's step number `step`, counted from 1, to change gradients before clipping.

        They are those of the batch's mean loss, whatever the precision and however many ranks share its rows.
        """

    def after_step(self, step: int) -> None:  # noqa: B027 - most methods do nothing here
        """Called after the optimizer's step number `step`, counted from 1, as part of the step; gradients are there.

        Not called after a step that was skipped because its gradients overflowed in fp16. A run that is taken up again
        goes on after a checkpoint, which holds the trainable parameters, the optimizer's state and `extra_state`: what
        is done here may depend on these and on `step`, and on nothing else that earlier calls have kept.
        """

    def extra_state(self) -> dict[str, Tensor]:
        """What later steps depend on beside the trainable parameters, by names that never change between two steps.

        Checkpoints hold it, and what is read from one is copied into these tensors after `set_num_steps`.
        """
        return {}

    def as_saved(self) -> AbstractContextManager[None]:
        """Inside, the base computes what is read from `save`'s files; whatever is scored is scored so.

        There are no gradients inside, and afterwards all is as before.
        """
        return nullcontext()

    def save(self, folder: Path, base: BaseReference | None = None) -> None:
        """Write the adapter's files. With a base, its name and its tokenizer are written too.

        The same adapter gives the same bytes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if base is not None:
            base.copy_tokenizer(folder)
        self._write(folder, base)

    def detach(self) -> None:
        """Take the adapter off; the base is as before, bit for bit."""
        for parameter in self.base.model.parameters():
            parameter.grad = None
        self._take_off()
        self.base.dropout_modules = []
        self.base.has_wide_parts = False
        self.base.model.requires_grad_(False)
        self.base.choose_path()

    @abstractmethod
    def _write(self, folder: Path, base: BaseReference | None) -> None:
        """Write the weights, and what is needed to read them."""

    @abstractmethod
    def _take_off(self) -> None:
        """Give the base its own modules and weights back."""
