"""LoftQ's start (Li et al. 2023): LoRA that begins with what quantising took from each weight, as far as its rank goes.

The best product of that rank, from the singular values of W - Q, divided by LoRA's scale so that W is closest at the
start. The quantised weights stay as they are: one step of the paper's alternation, as PEFT does it on bitsandbytes'
bases, and what is saved is plain LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lorabench.core.errors import ModelError
from lorabench.methods.lora import Lora
from lorabench.methods.peft_adapter import PeftAdapter

if TYPE_CHECKING:
    from torch import Tensor


class LoftqAdapter(PeftAdapter):
    """LoRA with another start."""

    def prepare(self, published: Mapping[str, Tensor]) -> None:
        """Read the model once more as it was published, and let go of it."""
        from transformers.pytorch_utils import Conv1D

        from lorabench.models.base import load_base

        if self.base.folder is None:
            raise ModelError("adapter.method: loftq reads the model once more, and this one was not read from a folder")
        whole = load_base(self.base.folder, precision=self.base.precision, device="cpu").model
        for path in published:
            module, source = self.base.model.get_submodule(path), whole.get_submodule(path)
            weight = source.weight.t() if isinstance(source, Conv1D) else source.weight
            _start(module, weight)


class Loftq(Lora):
    """LoRA that starts from the loss of quantising."""

    adapter = LoftqAdapter
    quantizations = frozenset({"nf4", "nf4-double"})


def _start(module: Any, published: Tensor) -> None:
    """Give PEFT's layer its factors; `published` is the weight [out, in] before it was quantised."""
    import torch

    from lorabench.models.quantized import dequantize_into

    a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
    held = torch.empty(published.shape, device=a.device)
    dequantize_into(module.get_base_layer(), held)
    left, sizes, right = torch.linalg.svd(published.to(a.device, torch.float32) - held, full_matrices=False)
    roots = (sizes[: len(a)] / module.scaling["default"]).sqrt()
    a.data.copy_(roots[:, None] * right[: len(a)])
    b.data.copy_(left[:, : len(a)] * roots)


METHOD = Loftq()
