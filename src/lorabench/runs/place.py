"""Where runs are done, as the user's options say: the executor, and the device that runs are planned for."""

from __future__ import annotations

from lorabench.core.device import Device, choose_device
from lorabench.core.errors import InputError
from lorabench.core.worker_devices import common_device, parse_devices


def choose_place(device: str | None, devices: str | None, executor: str = "here") -> tuple[str, Device]:
    """The executor, and the device that runs are planned for. Raises InputError for options that exclude each other."""
    if devices is None:
        if executor == "devices":
            raise InputError("--executor devices: give --devices, such as all, 0,1 or cpu:2, instead")
        return executor, choose_device(device)
    if device is not None:
        raise InputError(f"--device {device} and --devices {devices} exclude each other; give one of them")
    if executor not in ("here", "devices"):
        raise InputError(f"--devices {devices} and --executor {executor} exclude each other; give one of them")
    return "devices", common_device(parse_devices(devices))
