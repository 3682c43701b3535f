"""What is known of this machine's speed: a file in the cache for each device, read by estimates. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorabench.core.device import Device
from lorabench.core.device_rates import DeviceRates, measure_rates
from lorabench.core.machine import memory_bytes, num_cores, processor_name
from lorabench.core.storage import cache_root, recall, remember


def calibration_path(device: Device) -> Path:
    """One file for each machine and kind of device: processors and cards of the same name are taken to be alike."""
    gpu = f"{device.type} {device.name}" if device.is_gpu else "0"
    machine = f"{processor_name()}|{num_cores()}|{memory_bytes() >> 30}|{gpu}"
    return cache_root() / "calibration" / f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"


def read_calibration(device: Device) -> dict[str, Any]:
    """Everything that was kept of the device."""
    values = recall(calibration_path(device))
    return values if isinstance(values, dict) else {}


def keep(device: Device, name: str, value: object) -> None:
    """Keep a JSON value beside what is known of the device."""
    remember(calibration_path(device), read_calibration(device) | {name: value})


def measured_rates(device: Device) -> DeviceRates | None:
    """Of a GPU that was calibrated on this machine."""
    kept = read_calibration(device).get("rates")
    return DeviceRates(**kept["values"]) if isinstance(kept, dict) else None


def calibrate(device: Device) -> None:
    """Measure a GPU that this machine knows nothing of yet, or knows with another torch; takes a second or two.

    A processor is probed with numpy when something is estimated.
    """
    if not device.is_gpu:
        return
    import torch

    kept = read_calibration(device).get("rates")
    if isinstance(kept, dict) and kept["torch"] == torch.__version__:
        return
    rates = measure_rates(torch.device(str(device)), with_bf16=device.supports_bf16)
    keep(device, "rates", {"torch": torch.__version__, "values": asdict(rates)})
