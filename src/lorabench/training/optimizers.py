"""The optimizers by name. Each keeps all that its next step depends on in `state`, so that a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lorabench.core.errors import InputError, MissingExtraError
from lorabench.experiment.schema import TrainingSettings
from lorabench.models.linears import is_embedding, is_head

Groups = list[dict[str, Any]]
BETAS, EPSILON = (0.9, 0.999), 1e-8


def _adamw(groups: Groups, names: Mapping[Tensor, str], rate: float) -> torch.optim.Optimizer:
    """Loshchilov and Hutter 2019, one fused update for all parameters of a group."""
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS, eps=EPSILON, fused=True)


def _adamw_8bit(groups: Groups, names: Mapping[Tensor, str], rate: float) -> torch.optim.Optimizer:
    """AdamW whose moments are kept in 8 bits (Dettmers et al. 2022)."""
    optimizer: torch.optim.Optimizer = _bitsandbytes().AdamW8bit(groups, lr=rate, betas=BETAS, eps=EPSILON)
    return optimizer


def _paged_adamw_8bit(groups: Groups, names: Mapping[Tensor, str], rate: float) -> torch.optim.Optimizer:
    """The same, in memory that a GPU shares with the processor."""
    require_optimizer("paged-adamw-8bit", next(iter(names)).device.type)
    optimizer: torch.optim.Optimizer = _bitsandbytes().PagedAdamW8bit(groups, lr=rate, betas=BETAS, eps=EPSILON)
    return optimizer


def _muon(groups: Groups, names: Mapping[Tensor, str], rate: float) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024) for matrices, AdamW for vectors, embeddings and heads."""
    return MuonAndAdamW(groups, lambda weight: weight.ndim == 2 and not _is_table(names[weight]), rate)


def _adafactor(groups: Groups, names: Mapping[Tensor, str], rate: float) -> torch.optim.Optimizer:
    """Shazeer and Stern 2018: second moments of rows and columns; the rate is relative to a parameter's size."""
    return torch.optim.Adafactor(groups, lr=rate)


def _sgd(groups: Groups, names: Mapping[Tensor, str], rate: float) -> torch.optim.Optimizer:
    """Gradient descent with momentum 0.9."""
    return torch.optim.SGD(groups, lr=rate, momentum=0.9)


def _schedule_free(groups: Groups, names: Mapping[Tensor, str], rate: float) -> torch.optim.Optimizer:
    """Defazio et al. 2024."""
    return ScheduleFreeAdamW(groups, rate)


_MAKERS: Mapping[str, Callable[[Groups, Mapping[Tensor, str], float], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw-8bit": _adamw_8bit,
    "paged-adamw-8bit": _paged_adamw_8bit,
    "muon": _muon,
    "adafactor": _adafactor,
    "sgd": _sgd,
    "schedule-free": _schedule_free,
}


def require_optimizer(name: str, device_type: str) -> None:
    """Raises InputError where a device of the type cannot have it, MissingExtraError where its library is missing."""
    if name == "paged-adamw-8bit" and device_type != "cuda":
        raise InputError(
            f"training.optimizer: {name} moves its state between a GPU and the processor, and there is no GPU here; "
            "take adamw-8bit"
        )
    if name.endswith("8bit"):
        _bitsandbytes()


def optimizer_of(groups: Groups, names: Mapping[Tensor, str], settings: TrainingSettings) -> torch.optim.Optimizer:
    """That of the settings for groups of parameters, each of which is named.

    Raises InputError where this machine cannot run it.
    """
    return _MAKERS[settings.optimizer](groups, names, settings.learning_rate)


def averaged(optimizer: torch.optim.Optimizer) -> AbstractContextManager[None]:
    """Inside, the parameters are those that the optimizer means to be scored."""
    return optimizer.averaged() if isinstance(optimizer, ScheduleFreeAdamW) else nullcontext()


def finish(optimizer: torch.optim.Optimizer) -> None:
    """Leave the parameters as they are scored; a checkpoint was written before."""
    if isinstance(optimizer, ScheduleFreeAdamW):
        optimizer.finish()


class MuonAndAdamW(torch.optim.Optimizer):
    """Two optimizers behind one: Muon for the parameters that `is_matrix` names, AdamW for the others."""

    def __init__(self, groups: Groups, is_matrix: Callable[[Tensor], bool], rate: float) -> None:
        split: list[Groups] = [
            [
                {**group, "params": chosen}
                for group in groups
                if (chosen := [weight for weight in group["params"] if is_matrix(weight) == wanted])
            ]
            for wanted in (True, False)
        ]
        super().__init__([dict(group) for part in split for group in part], {"lr": rate})
        matrices, others = split
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, lr=rate, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=rate, betas=BETAS, eps=EPSILON))

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both, at the rates of this one's groups."""
        inner = [group for part in self._parts for group in part.param_groups]
        for own, theirs in zip(self.param_groups, inner, strict=True):
            theirs["lr"] = own["lr"]
        for part in self._parts:
            part.step()
            self.state.update(part.state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state up, in both."""
        super().load_state_dict(state_dict)
        for part in self._parts:
            for group in part.param_groups:
                part.state.update({weight: self.state[weight] for weight in group["params"] if weight in self.state})


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """AdamW without a schedule: gradients are taken between the steps' own point z and its average x, which is scored.

    y = (1 - beta) z + beta x is what the parameters are while they are trained; x averages z by squared rates.
    """

    def __init__(self, groups: Groups, rate: float) -> None:
        super().__init__(groups, {"lr": rate, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step at each group's rate."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, self.state[weight], group["lr"], group["weight_decay"])

    def _update(self, weight: Tensor, state: dict[str, Any], rate: float, decay: float) -> None:
        if not state:
            state["step"], state["weight_sum"] = 0, 0.0
            state["exp_avg_sq"] = torch.zeros_like(weight)
            state["z"], state["x"] = weight.clone(), weight.clone()
        first, second = BETAS
        state["step"] += 1
        squares, z, x, gradient = state["exp_avg_sq"], state["z"], state["x"], weight.grad
        assert gradient is not None
        squares.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
        size = (squares / (1.0 - second ** state["step"])).sqrt_().add_(EPSILON)
        z.sub_((gradient / size).add_(weight, alpha=decay), alpha=rate)
        state["weight_sum"] += rate**2
        x.lerp_(z, rate**2 / state["weight_sum"] if rate else 0.0)
        weight.copy_(z.lerp(x, first))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters are the averages."""
        trained = [(weight, weight.data.clone()) for weight in self._stepped()]
        self.finish()
        try:
            yield
        finally:
            for weight, data in trained:
                weight.data.copy_(data)

    def finish(self) -> None:
        """Make the averages the parameters."""
        for weight in self._stepped():
            weight.data.copy_(self.state[weight]["x"])

    def _stepped(self) -> Sequence[Tensor]:
        return [weight for group in self.param_groups for weight in group["params"] if self.state.get(weight)]


def _is_table(name: str) -> bool:
    path = name.removesuffix(".weight")
    return is_embedding(path) or is_head(path)


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes.optim
    except ImportError:
        raise MissingExtraError("training.optimizer: an optimizer in 8 bits", "qlora") from None
    return bitsandbytes.optim
