"""AdaLoRA (Zhang et al. 2023): factors like those of a singular value decomposition, the least important of them cut.

Every layer begins with `initial_rank` triplets: a row of A, a column of B and the entry of E between them. Once the
first share of the steps is over, entries of the least important triplets of all layers are set to zero, more of them
with every step, until `rank` a layer remain on average; the last share trains those that are left. PEFT says how
important a triplet is, and how many are left at a step. What is cut is saved as zeros, which PEFT reads as it stands.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from lorabench.core.errors import ConfigError
from lorabench.methods.any_peft import AnyPeftAdapter
from lorabench.methods.on_linears import OnLinears
from lorabench.methods.settings import AdapterSettings

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_SHARE = 0.9


class AdaloraSettings(AdapterSettings):
    """AdaLoRA's own settings; `rank` is the mean rank that remains."""

    initial_rank: Annotated[int, Field(ge=2, le=8192)] | None = None
    """Of every layer at the start, above `rank`; None: half as many again as `rank`, rounded up."""
    initial_share: Annotated[float, Field(ge=0.0, le=_LARGEST_SHARE)] = 0.1
    """Of the run's steps, before ranks are cut (PEFT's tinit)."""
    final_share: Annotated[float, Field(ge=0.0, le=_LARGEST_SHARE)] = 0.3
    """Of the run's steps, after they are (PEFT's tfinal)."""
    delta_t: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Steps from one cut to the next."""
    orth_reg_weight: Annotated[float, Field(ge=0.0, le=1e3)] = 0.5
    """Of the penalty for rows of A and columns of B that are not orthonormal."""

    @model_validator(mode="after")
    def _check(self) -> AdaloraSettings:
        if self.first_rank <= self.rank:
            raise ValueError(
                f"initial_rank {self.initial_rank} should be above rank {self.rank}, the mean that remains"
            )
        if self.initial_share + self.final_share > _LARGEST_SHARE:
            raise ValueError(
                f"initial_share {self.initial_share} and final_share {self.final_share} should be at most "
                f"{_LARGEST_SHARE} together: ranks are cut in between"
            )
        return self

    @property
    def first_rank(self) -> int:
        """The rank of every layer at the start."""
        return math.ceil(1.5 * self.rank) if self.initial_rank is None else self.initial_rank


class AdaloraAdapter(AnyPeftAdapter):
    """PEFT's modules and its allocator, whose statistics are part of what a run goes on from."""

    def prepare(self) -> None:
        """Freeze the ranks that PEFT divides by: in half precision it makes parameters of them that are trained."""
        for name, weight in self._peft.named_parameters():
            if ".ranknum." in name:
                weight.requires_grad_(False)

    def set_num_steps(self, num_steps: int) -> None:
        """Lay the cuts over the run's steps. Raises ConfigError where there is none to measure importance in."""
        import torch

        own, config = _own(self.settings), self._peft.peft_config["default"]
        if num_steps < 2:
            raise ConfigError(
                "adapter.method: adalora measures what matters before it cuts, which takes two steps, and this run has "
                f"{num_steps}; give more text or more epochs, or a smaller batch_size"
            )
        config.total_step = num_steps
        config.tinit = int(own.initial_share * num_steps)
        config.tfinal = min(int(own.final_share * num_steps), num_steps - 2)
        self._allocator, self._adapted = self._peft.base_model.rankallocator, self._peft.get_base_model()
        factors = {name: weight for name, weight in self._adapted.named_parameters() if weight.requires_grad}
        for statistics in (self._allocator.ipt, self._allocator.exp_avg_ipt, self._allocator.exp_avg_unc):
            statistics.update({name: torch.zeros_like(weight) for name, weight in factors.items()})
        self._values = {name: weight for name, weight in factors.items() if ".lora_E." in name}
        self._remaining = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self._values.items()}
        self._is_cut = torch.tensor(False)  # on the processor: asking costs no wait for a GPU

    def extra_state(self) -> dict[str, Tensor]:
        """The running means of importance, and what remains after the last cut."""
        importance, uncertainty = self._allocator.exp_avg_ipt, self._allocator.exp_avg_unc
        return {
            "is_cut": self._is_cut,
            **{f"remaining.{name}": tensor for name, tensor in self._remaining.items()},
            **{f"importance.{name}": tensor for name, tensor in importance.items()},
            **{f"uncertainty.{name}": tensor for name, tensor in uncertainty.items()},
        }

    def before_step(self, step: int) -> None:
        """Add the gradient of the penalty, which is not part of the loss that is shown."""
        import torch

        penalties = []
        for name, weight in self.named_parameters():
            if weight.grad is None:  # a layer that the batch did not come by
                weight.grad = torch.zeros_like(weight)
            if ".lora_E." not in name:
                vectors = weight if ".lora_A." in name else weight.T
                penalties.append(torch.linalg.matrix_norm(vectors @ vectors.T - torch.eye(len(vectors)).to(weight)))
        torch.autograd.backward(_own(self.settings).orth_reg_weight * torch.stack(penalties).mean())

    def after_step(self, step: int) -> None:
        """Measure what matters, and cut what is beyond the step's budget; after the last cut it stays cut."""
        import torch

        config = self._peft.peft_config["default"]
        last_cut = config.total_step - config.tfinal
        if not self._is_cut:
            step = min(step, last_cut)  # where that step was skipped, the next one cuts
            _, remaining = self._allocator.update_and_allocate(self._adapted, step, force_mask=step == last_cut)
            if step == last_cut:
                for name, flags in remaining.items():
                    self._remaining[name].copy_(torch.tensor(flags)[:, None])
                self._is_cut.fill_(True)
        else:
            for name, weight in self._values.items():
                weight.data.masked_fill_(~self._remaining[name], 0.0)


class Adalora(OnLinears):
    """The rank is shared out among the layers while they are trained."""

    settings = AdaloraSettings
    adapter = AdaloraAdapter
    takes_quantized = True
    refused_optimizers = frozenset({"schedule-free"})
    statistics_bytes = 12
    """Its sensitivity, the running mean of that, and of how far it strays from it, float32 each."""

    def count_layer(self, settings: AdapterSettings, inputs: int, outputs: int) -> int:
        """Three factors of the initial rank."""
        return _own(settings).first_rank * (inputs + 1 + outputs)

    def configuration(self, settings: AdapterSettings, targets: list[str], seed: int) -> Any:
        """PEFT's AdaLoraConfig; its steps are known when training begins."""
        from peft import AdaLoraConfig

        own = _own(settings)
        return AdaLoraConfig(
            target_r=own.rank,
            init_r=own.first_rank,
            lora_alpha=own.alpha_value,
            lora_dropout=own.dropout,
            deltaT=own.delta_t,
            orth_reg_weight=own.orth_reg_weight,
            total_step=1,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )


def _own(settings: AdapterSettings) -> AdaloraSettings:
    assert isinstance(settings, AdaloraSettings)
    return settings


METHOD = Adalora()
