"""What an NVIDIA card tells of itself (NVML): the memory in use on it, and the energy that it took."""

from __future__ import annotations

import os
from typing import Any

_VISIBLE = "CUDA_VISIBLE_DEVICES"


class GpuMeter:
    """Of one card, whoever uses it; energy is counted from when this was made.

    Figures are None where NVML or its package (nvidia-ml-py) is not there, or the card does not tell.
    """

    def __init__(self, device: str) -> None:
        """`device` is torch's name: `cuda`, `cuda:1`."""
        self._handle = _handle(int(device.partition(":")[2] or 0))
        self._start = self._millijoules()

    def used_bytes(self) -> int | None:
        """Of the card's memory, now."""
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        return None if memory is None else int(memory.used)

    def joules(self) -> float | None:
        """So far."""
        now = self._millijoules()
        return None if now is None or self._start is None else (now - self._start) * 1e-3

    def _millijoules(self) -> int | None:
        found = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if found is None else int(found)

    def _ask(self, question: str) -> Any:
        if self._handle is None:
            return None
        import pynvml

        try:
            return getattr(pynvml, question)(self._handle)
        except pynvml.NVMLError:
            return None


def _handle(index: int) -> Any:
    """NVML's own of a card by its number among those that are visible; None where there is no such."""
    try:
        import pynvml
    except ImportError:
        return None
    visible = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    if visible and index >= len(visible):
        return None
    name = visible[index] if visible else str(index)
    try:
        pynvml.nvmlInit()
        if name.isdecimal():
            return pynvml.nvmlDeviceGetHandleByIndex(int(name))
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    except pynvml.NVMLError:
        return None
