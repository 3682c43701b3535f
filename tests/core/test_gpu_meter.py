"""An NVIDIA card's own counters, asked of a module that stands for NVML's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lorabench.core.gpu_meter import GpuMeter


class NVMLError(Exception):
    pass


def nvml(**answers: list[Any]) -> ModuleType:
    """Cards are known by number and by name; a question without an answer is refused."""

    def ask(name: str) -> Callable[[object], Any]:
        def answer(handle: object) -> Any:
            if name not in answers:
                raise NVMLError(name)
            return answers[name].pop(0)

        return answer

    module = ModuleType("pynvml")
    module.NVMLError = NVMLError  # type: ignore[attr-defined]
    module.nvmlInit = lambda: None  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByIndex = lambda index: f"number {index}"  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByUUID = lambda name: f"name {name}"  # type: ignore[attr-defined]
    for name in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetTotalEnergyConsumption"):
        setattr(module, name, ask(name))
    return module


def test_memory_and_energy_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    memory = [SimpleNamespace(used=3_000_000), SimpleNamespace(used=5_000_000)]
    module = nvml(nvmlDeviceGetMemoryInfo=memory, nvmlDeviceGetTotalEnergyConsumption=[1_000, 3_500])
    monkeypatch.setitem(sys.modules, "pynvml", module)
    meter = GpuMeter("cuda:1")
    assert (meter.used_bytes(), meter.used_bytes()) == (3_000_000, 5_000_000)
    assert meter.joules() == 2.5


def test_a_card_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    meter = GpuMeter("cuda")
    assert meter.used_bytes() is None
    assert meter.joules() is None


def test_no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert GpuMeter("cuda").used_bytes() is None


@pytest.mark.parametrize(
    ("visible", "device", "card"),
    [("2,3", "cuda:1", "number 3"), ("GPU-1f", "cuda", "name GPU-1f"), ("2", "cuda:1", None)],
)
def test_cards_are_numbered_as_they_are_visible(
    visible: str, device: str, card: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    asked: list[object] = []
    module = nvml()
    module.nvmlDeviceGetMemoryInfo = lambda handle: asked.append(handle) or SimpleNamespace(used=1)  # type: ignore[attr-defined,func-returns-value]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert GpuMeter(device).used_bytes() == (None if card is None else 1)
    assert asked == ([] if card is None else [card])
