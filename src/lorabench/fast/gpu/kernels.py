"""The passes of a step for an NVIDIA GPU, where the number of launches and of bytes counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lorabench.fast.attention import Heads, Rotation, Segments
from lorabench.fast.differentiable import apply
from lorabench.fast.gpu.attention import Capability, attend_padded, attend_varlen, capability_of, takes_varlen
from lorabench.fast.gpu.passes import Passes
from lorabench.fast.kernels import ActivationKind, Norm, PlainKernels, Product

HEAD_BYTES = 1 << 30
"""Of logits that are held at once."""
HEAD_ALIGNMENT = 64
"""Their rows are a multiple of it long: with GPT-2's 50,257 columns an H200 took six times as long as with 50,304."""


class GpuKernels(PlainKernels):
    """Passes in one kernel each, attention over all documents in one call a layer, sums of products in float32."""

    saves_launches = True
    head_alignment = HEAD_ALIGNMENT

    def __init__(self, passes: Passes, capability: Callable[[torch.device], Capability] = capability_of) -> None:
        super().__init__(passes.reason)
        self.passes = passes
        self.name = passes.name
        self.capability = capability
        torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew, for half a second, for every shape
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False

    @property
    def compile_seconds(self) -> float:  # type: ignore[override]
        """So far: a pass is compiled when it is first needed."""
        return self.passes.compile_seconds

    def multiply(self, products: Sequence[Product]) -> list[Tensor]:
        return [_multiply_wide(product) if _is_wide(product) else self.multiply_one(product) for product in products]

    def add_norm(
        self, residual: Tensor, delta: Tensor | None, norm: Norm, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        _fix_width(norm)
        return self.passes.run("add_norm", residual, delta, norm, dtype)  # type: ignore[no-any-return]

    def add_norm_backward(
        self, d_total: Tensor | None, d_normed: Tensor, total: Tensor, mean: Tensor | None, scale: Tensor, norm: Norm
    ) -> tuple[Tensor, Tensor, Tensor]:
        _fix_width(norm)
        return self.passes.run(  # type: ignore[no-any-return]
            "add_norm_backward", d_total, d_normed, total, mean, scale, norm
        )

    def activation(self, kind: ActivationKind, gate: Tensor, up: Tensor | None) -> Tensor:
        return self.passes.run("activation", kind, gate, up)  # type: ignore[no-any-return]

    def activation_backward_(
        self, kind: ActivationKind, gate: Tensor, up: Tensor | None, d_out: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        return self.passes.run("activation_backward_", kind, gate, up, d_out)  # type: ignore[no-any-return]

    def attend(self, projections: tuple[Tensor, ...], heads: Heads, segments: Segments) -> Tensor:
        query, key, value = heads.views(projections)
        if segments.rotation is not None:
            query, key = apply(_Rotate, query, key, segments.rotation, self.passes)
        return self.attend_within(query, key, value, heads, segments).flatten(1)

    def attend_within(self, query: Tensor, key: Tensor, value: Tensor, heads: Heads, segments: Segments) -> Tensor:
        """Queries [T, heads, width], keys and values [T, key heads, width] -> [T, heads, width], differentiable."""
        can = takes_varlen(query.dtype, heads, segments.longest, self.capability(query.device))
        return (attend_varlen if can else attend_padded)(query, key, value, heads, segments)

    def cross_entropy_(self, logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
        return self.passes.run("cross_entropy_", logits, targets, gradient)  # type: ignore[no-any-return]

    def room_for_logits(self, hidden: Tensor, vocabulary_size: int) -> Tensor:
        row = -(-vocabulary_size // HEAD_ALIGNMENT) * HEAD_ALIGNMENT
        num_rows = max(1, min(len(hidden), HEAD_BYTES // (row * hidden.element_size())))
        return hidden.new_empty(num_rows, row)[:, :vocabulary_size]


def _is_wide(product: Product) -> bool:
    """Whether half-precision factors are summed into float32, which torch does on GPUs alone."""
    (left, _), *others = product.terms
    out = product.out
    if out is None or out.dtype != torch.float32 or left.dtype == torch.float32:
        return False
    return left.device.type in ("cuda", "meta") and product.bias is None and not others


def _multiply_wide(product: Product) -> Tensor:
    left, right = product.terms[0]
    wide: Tensor = torch.mm(left, right, out_dtype=torch.float32, out=product.out)
    return wide


def _fix_width(norm: Norm) -> None:
    """The width is a constant of the compiled kernel, which can then hold a row in registers; the tokens are not."""
    if not hasattr(norm.weight, "_dynamo_static_indices"):
        torch._dynamo.mark_static(norm.weight, 0)


class _Rotate(torch.autograd.Function):
    """(queries, keys) -> both turned."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, rotation: Rotation, passes: Passes) -> tuple[Tensor, Tensor]:
        ctx.rotation, ctx.passes = rotation, passes
        turned: tuple[Tensor, Tensor]
        turned = passes.run("rotate", query, key, rotation.cosine, rotation.sine, back=False)
        return turned

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rotation: Rotation = ctx.rotation
        d_query, d_key = ctx.passes.run("rotate", *gradients, rotation.cosine, rotation.sine, back=True)
        return d_query, d_key, None, None
