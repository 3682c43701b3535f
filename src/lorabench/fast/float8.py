"""Linear layers whose weights are held in eight-bit floats (E4M3), with a scale for each row, on any device.

A weight is made whole for each product, and products are those of the model's own precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

CODES = torch.float8_e4m3fn
LARGEST = torch.finfo(CODES).max


class Float8Linear(nn.Linear):
    """A frozen linear layer. `codes` [out, in] times `scales` [out, 1] is its weight, in the type it was made from."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """`weight` [out, in], which is only read. Raises ValueError where it is not finite."""
        nn.Module.__init__(self)  # nn.Linear would make a weight of its own
        self.out_features, self.in_features = weight.shape
        scales = weight.detach().float().abs().amax(dim=1, keepdim=True) / LARGEST
        if not scales.isfinite().all():
            raise ValueError("a weight is not finite")
        scales[scales == 0] = 1
        self.dtype = weight.dtype
        self.codes = nn.Parameter((weight.detach() / scales).to(CODES), requires_grad=False)
        self.scales = nn.Buffer(scales)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach(), requires_grad=False))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """[out, in], made anew."""
        return _whole(self.codes, self.scales, self.dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out]; nothing of the whole weight is kept for the backward pass."""
        product: Tensor = _Product.apply(inputs, self.codes, self.scales, self.dtype)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(codes, scales)
        ctx.dtype = dtype
        return functional.linear(inputs, _whole(codes, scales, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None, None]:
        codes, scales = ctx.saved_tensors
        return outer @ _whole(codes, scales, ctx.dtype), None, None, None


def _whole(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return codes.to(dtype).mul_(scales)


def hold_in_float8(model: Any) -> None:
    """Replace every linear layer but the output head, one by one; GPT-2's transposed ones are turned.

    Raises ValueError where a weight is not finite.
    """
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if module is head or type(module) not in (nn.Linear, Conv1D):
            continue
        weight = module.weight if type(module) is nn.Linear else module.weight.t()
        model.set_submodule(name, Float8Linear(weight, module.bias))
