"""How fast a device multiplies, moves memory and is handed work: measured within a second or two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorabench.core.device import release_memory, synchronize

if TYPE_CHECKING:
    import torch

PRODUCT_SIZE = 4096
"""Rows and columns of the matrices that are multiplied: enough to fill any card."""
COPIED_BYTES = 256 << 20
SECONDS = 0.25
"""Of each measurement, beside its warm-up."""
LAUNCHES = 200


@dataclass(frozen=True)
class DeviceRates:
    """What products and everything else are counted in."""

    bf16: float
    """Multiply-adds per second of products; 0: the device has no units for them."""
    fp16: float
    fp32: float
    bytes_per_second: float
    """Read and written."""
    launch_seconds: float = 0.0
    """Until the device has been handed the next piece of work."""

    def products(self, precision: str) -> float:
        """Multiply-adds per second; a device without units for a precision computes in float32."""
        return {"bf16": self.bf16, "fp16": self.fp16}.get(precision, 0.0) or self.fp32


def measure_rates(
    device: torch.device, *, size: int = PRODUCT_SIZE, num_bytes: int = COPIED_BYTES, with_bf16: bool = True
) -> DeviceRates:
    """Of a device that is used for nothing else meanwhile."""
    import torch

    def products(dtype: torch.dtype) -> float:
        left = torch.full((size, size), 0.5, dtype=dtype, device=device)
        right, out = left.clone(), torch.empty_like(left)
        return size**3 / _seconds(lambda: torch.mm(left, right, out=out), device)

    source = torch.zeros(num_bytes // 4, dtype=torch.float32, device=device)
    target, single = torch.empty_like(source), torch.zeros(1, device=device)
    bytes_per_second = 2 * num_bytes / _seconds(lambda: target.copy_(source), device)

    def launches() -> None:
        for _ in range(LAUNCHES):
            single.add_(1.0)

    launch_seconds = _seconds(launches, device) / LAUNCHES
    rates = DeviceRates(
        bf16=products(torch.bfloat16) if with_bf16 else 0.0,
        fp16=products(torch.float16),
        fp32=products(torch.float32),
        bytes_per_second=bytes_per_second,
        launch_seconds=launch_seconds,
    )
    release_memory(device)
    return rates


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one piece of work: rounds of more and more of them are waited for once each, until one takes long enough."""
    work()
    synchronize(device)
    count = 1
    while True:
        started = time.perf_counter()
        for _ in range(count):
            work()
        synchronize(device)
        seconds = time.perf_counter() - started
        if seconds >= SECONDS / 2:
            return seconds / count
        count *= 2
