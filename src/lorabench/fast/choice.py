"""Which passes a kind of device gets."""

from __future__ import annotations

from functools import cache

from lorabench.fast.cpu.native import native_kernels
from lorabench.fast.gpu.kernels import GpuKernels
from lorabench.fast.gpu.passes import compile_for, count_as_one
from lorabench.fast.kernels import Kernels, PlainKernels


@cache
def kernels_for(device_type: str) -> Kernels:
    """The fastest passes this machine can have for `cpu`, `cuda`, `mps` or `meta`, made once."""
    if device_type == "cpu":
        return native_kernels()
    if device_type == "cuda":
        return GpuKernels(compile_for("cuda"))
    return GpuKernels(count_as_one()) if device_type == "meta" else PlainKernels()
