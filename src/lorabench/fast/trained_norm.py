"""A norm of the base whose weight is trained: in torch's own operations, which give its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from lorabench.fast.kernels import Norm


def trained_norm(stream: Tensor, norm: Norm) -> Tensor:
    """The norm of a stream [T, width], float32, by its weight and bias as they are now."""
    assert norm.trained is not None
    weight, bias = norm.trained()
    centred = stream - stream.mean(-1, keepdim=True) if norm.centred else stream
    unit = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + norm.epsilon)
    return unit * weight if bias is None else unit * weight + bias
