"""Which passes a kind of device gets."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from lorabench.fast.attention import Heads, Segments, attend_within
from lorabench.fast.cpu.native import native_kernels
from lorabench.fast.gpu.kernels import GpuKernels
from lorabench.fast.gpu.passes import compile_for, count_as_one
from lorabench.fast.kernels import Kernels, PlainKernels


def kernels_for(device_type: str, dtype: torch.dtype = torch.float32) -> Kernels:
    """The fastest passes this machine can have for `cpu`, `cuda`, `mps` or `meta` and a type of activations."""
    return _kernels_of(device_type, device_type == "cpu" and dtype == torch.float16)


@cache
def _kernels_of(device_type: str, half: bool) -> Kernels:
    """Made once; one for all types but float16 on a processor."""
    if device_type == "cpu":
        return PlainKernels("a processor computes float16 through torch: slower") if half else native_kernels()
    if device_type == "cuda":
        return GpuKernels(compile_for("cuda"))
    return GpuKernels(count_as_one()) if device_type == "meta" else PlainKernels()


def attend_flat(query: Tensor, key: Tensor, value: Tensor, heads: Heads, segments: Segments) -> Tensor:
    """Queries [T, heads, width], keys and values [T, key heads, width] -> [T, heads, width], as the device likes it."""
    kernels = kernels_for("cuda") if query.device.type == "cuda" else None
    if isinstance(kernels, GpuKernels):
        return kernels.attend_within(query, key, value, heads, segments)
    return attend_within(query, key, value, heads, segments.starts)
