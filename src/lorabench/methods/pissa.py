"""PiSSA as plain LoRA: what is scored and saved is an adapter on the base as it was published.

PiSSA (Meng et al. 2024) takes a product B0 A0 of the largest singular directions out of each weight W and trains it on:
y = (W - s B0 A0) x + s B A x. The same function on the unchanged base is a LoRA of at most twice the rank, with the
product B A - B0 A0. Its factors are made anew from that product's singular values, in float64: stacked, [B, -B0] and
[A; A0] are large and cancel one another, so that bfloat16 loses what a short training changed.

In float32 both forms score alike to 1e-7 nats a token. On a bfloat16 base PiSSA trains on a rounded W - s B0 A0, which
no low rank can repair: 1e-4 to 5e-4 nats a token lie between the forms, as much as rounding moves other scores. Scoring
what is saved, along the run too, makes every recorded figure one of the file's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorabench.methods.lora import Lora
from lorabench.methods.peft_adapter import PeftAdapter
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears

if TYPE_CHECKING:
    from torch import Tensor, nn


class PissaAdapter(PeftAdapter):
    """PiSSA while it is trained, plain LoRA of twice the rank while it is scored and saved."""

    _is_as_saved = False

    def prepare(self, published: Mapping[str, Tensor]) -> None:
        """Keep what was taken out of each weight, and the weight itself."""
        self._layers = [
            PissaLayer.of(self.base.model.get_submodule(path), weight) for path, weight in published.items()
        ]

    @contextmanager
    def as_saved(self) -> Iterator[None]:
        """Inside, the base computes plain LoRA on its unchanged weights."""
        if self._is_as_saved:
            yield
            return
        trained = [layer.factors for layer in self._layers]
        residuals = [layer.put(*layer.as_plain(), layer.published) for layer in self._layers]
        self._is_as_saved = True
        self.base.choose_path()
        try:
            yield
        finally:
            for layer, factors, residual in zip(self._layers, trained, residuals, strict=True):
                layer.put(*factors, residual)
            self._is_as_saved = False
            self.base.choose_path()

    def configuration(self) -> Any:
        """That of the plain LoRA."""
        config = super().configuration()
        config.init_lora_weights = True
        config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
        config.rank_pattern = {name: 2 * rank for name, rank in config.rank_pattern.items()}
        config.alpha_pattern = {name: 2 * alpha for name, alpha in config.alpha_pattern.items()}
        return config

    def _take_off(self) -> None:
        for layer in self._layers:
            layer.put(*layer.factors, layer.published)
        self._layers = []
        super()._take_off()


class Pissa(Lora):
    """LoRA that starts from each weight's largest singular directions."""

    adapter = PissaAdapter
    takes_quantized = False
    shares_passes = False
    keeps_published = True

    def count_saved(self, shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
        """It is saved as LoRA of twice the rank."""
        whole = self.count_beside_factors(shape, settings, targets)
        return 2 * self.count_factors(shape, settings, targets) + whole


@dataclass
class PissaLayer:
    """One adapted layer: PEFT's module, the base's weight as published, and the factors that were taken out of it."""

    module: Any
    published: Tensor
    initial_a: Tensor
    """[r, inputs]."""
    initial_b: Tensor
    """[outputs, r]."""

    @classmethod
    def of(cls, module: Any, published: Tensor) -> PissaLayer:
        """Of PEFT's module as it was just initialised, and the base's weight as it was before."""
        a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        return cls(module, published, a.detach().clone(), b.detach().clone())

    @property
    def factors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """A and B as they are now."""
        return self.module.lora_A["default"].weight, self.module.lora_B["default"].weight

    def as_plain(self) -> tuple[nn.Parameter, nn.Parameter]:
        """A [2r, inputs] and B [outputs, 2r] of the LoRA on the published weight, float32, without gradients."""
        from torch import nn

        a, b = self.factors
        first, second = difference_factors(b.detach(), a.detach(), self.initial_b, self.initial_a)
        return nn.Parameter(second, requires_grad=False), nn.Parameter(first, requires_grad=False)

    def put(self, a: nn.Parameter, b: nn.Parameter, weight: Tensor) -> Tensor:
        """Compute with these factors on this weight from now on; returns the weight that was there."""
        self.module.lora_A["default"].weight, self.module.lora_B["default"].weight = a, b
        base = self.module.get_base_layer().weight
        before: Tensor = base.data
        base.data = weight
        return before


def difference_factors(b: Tensor, a: Tensor, initial_b: Tensor, initial_a: Tensor) -> tuple[Tensor, Tensor]:
    """Factors [outputs, 2r] and [2r, inputs], float32, whose product is b a - initial_b initial_a.

    Columns beyond the product's rank are zero; factors that are not finite are stacked as they are.
    """
    import torch
    from torch.nn import functional

    rank, device = 2 * len(a), a.device
    left, right = torch.cat([b, -initial_b], dim=1), torch.cat([a, initial_a])
    if not (left.isfinite().all() and right.isfinite().all()):
        return left, right
    exact = "cpu" if device.type == "mps" else device  # which has no float64
    left, right = left.to(exact, torch.float64), right.to(exact, torch.float64)
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.t())
    u, sizes, vh = torch.linalg.svd(r_left @ r_right.t(), full_matrices=False)
    roots = sizes.sqrt()
    first = functional.pad(q_left @ (u * roots), (0, rank - len(roots)))
    second = functional.pad((roots[:, None] * vh) @ q_right.t(), (0, 0, 0, rank - len(roots)))
    return first.float().contiguous().to(device), second.float().contiguous().to(device)


METHOD = Pissa(init_lora_weights="pissa")
