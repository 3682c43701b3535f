"""Where runs are done, as the user's options say: the executor, and the device that runs are planned for."""

from __future__ import annotations

from lorabench.core.device import Device, choose_device
from lorabench.core.errors import InputError
from lorabench.core.formatting import rough_size
from lorabench.core.machine import memory_bytes, num_cores
from lorabench.core.worker_devices import common_device, parse_devices
from lorabench.experiment.plan import Plan
from lorabench.runs.executor import ExecutorKind, RemoteKind, executor_kind

MOST_SIDE_BY_SIDE = 64


def device_to_plan_for(device: str | None, devices: str | None) -> Device:
    """Of the options `--device` and `--devices`. Raises InputError where both are given, or name what is not there."""
    if devices is None:
        return choose_device(device)
    if device is not None:
        raise InputError(f"--device {device} and --devices {devices} exclude each other; give one of them")
    return common_device(parse_devices(devices))


def choose_place(
    device: str | None, devices: str | None, executor: str, address: str | None
) -> tuple[ExecutorKind, Device]:
    """The executor, and the device that runs are planned for. Raises InputError for options that exclude each other."""
    if devices is not None:
        if executor not in ("here", "devices") or address is not None:
            other = f"--executor {executor}" if address is None else "--address"
            raise InputError(f"--devices {devices} and {other} exclude each other; give one of them")
        return executor_kind("devices", devices), device_to_plan_for(device, devices)
    kind = executor_kind(executor, address)
    return kind, kind.find_device(device) if isinstance(kind, RemoteKind) else choose_device(device)


def parse_side_by_side(choice: str | int, *, is_here: bool = True) -> int | None:
    """How many runs share passes, as `RunContext.side_by_side` says it. Raises InputError, also where runs are done in
    other processes."""
    if choice == "off":
        return 1
    if not is_here:
        raise InputError("--side-by-side: runs are side by side in one process; leave out --devices and --executor")
    if choice == "auto":
        return None
    number = int(choice) if str(choice).isdecimal() else 0
    if not 1 <= number <= MOST_SIDE_BY_SIDE:
        raise InputError(
            f"--side-by-side: {str(choice)[:40]!r} is not accepted; expected is a number from 1 to "
            f"{MOST_SIDE_BY_SIDE}, auto or off"
        )
    return number


def worker_warnings(plan: Plan, devices: str | None) -> list[str]:
    """What the machine lacks for so many workers on its processor; nothing where each has a GPU of its own."""
    if devices is None or plan.device.is_gpu:
        return []
    count, warnings = len(parse_devices(devices)), []
    needed = count * max((run.estimated_memory_bytes for run in plan.runs), default=0)
    if needed > memory_bytes():
        warnings.append(
            f"{count} workers may take {rough_size(needed)} of memory, and this machine has "
            f"{rough_size(memory_bytes())}; fewer workers are safer"
        )
    if count > num_cores():
        warnings.append(f"{count} workers share {num_cores()} cores; more than one a core gains nothing")
    return warnings
