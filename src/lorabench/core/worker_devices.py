"""The devices that several workers compute on at the same time, as `--devices` names them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from lorabench.core.device import Device, choose_device, num_usable_gpus
from lorabench.core.errors import InputError
from lorabench.core.machine import num_cores

MOST_WORKERS = 256
ACCEPTED = "accepted: all (every NVIDIA GPU), GPUs by number (0,1), or so many workers on the processor (cpu:2)"
_THREADS, _VISIBLE = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class WorkerDevice:
    """What one worker computes on."""

    name: str
    """For people: `cpu 1`, `cuda:0`."""
    here: str
    """torch's name for it in this process."""
    there: str
    """torch's name for it in the worker's, which sees no other GPU."""
    num_threads: int
    environment: dict[str, str]
    """That the worker's process is given beside this process's own."""


def parse_devices(text: str) -> tuple[WorkerDevice, ...]:
    """One worker a device. Raises InputError for what is not accepted, or not there."""
    if not isinstance(text, str):
        raise InputError(f"--devices {str(text)[:80]!r} is not accepted; {ACCEPTED}")
    if found := re.fullmatch(r"cpu:(\d{1,9})", text.strip()):
        count = int(found[1])
        if not 1 <= count <= MOST_WORKERS:
            raise InputError(f"--devices {text}: {count} workers are not accepted; give cpu:1 to cpu:{MOST_WORKERS}")
        return _on_processor(count)
    if text.strip() == "all":
        if not (count := num_usable_gpus()):
            raise InputError(
                "--devices all: it means every NVIDIA GPU, and torch can use none here; give cpu:2 for two workers on "
                "the processor"
            )
        return _on_gpus(range(count))
    numbers = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d{1,3}", number) for number in numbers):
        raise InputError(f"--devices {text[:80]!r} is not accepted; {ACCEPTED}")
    return _on_gpus(_indices(text, [int(number) for number in numbers]))


def _indices(text: str, indices: list[int]) -> list[int]:
    """`indices`. Raises InputError where one is given twice, or there is no such GPU."""
    count = num_usable_gpus()
    if twice := [index for place, index in enumerate(indices) if index in indices[:place]]:
        raise InputError(f"--devices {text}: GPU {twice[0]} is given twice; give each device once")
    for index in indices:
        if index >= count:
            gpus = "none" if count == 0 else "GPU 0 alone" if count == 1 else f"GPUs 0 to {count - 1}"
            raise InputError(
                f"--devices {text}: there is no GPU {index}; torch can use {gpus} here, and cpu:2 needs none"
            )
    return indices


def common_device(devices: tuple[WorkerDevice, ...]) -> Device:
    """What runs are planned for: the first device. Raises InputError where precision auto would not be one for all."""
    found = [choose_device(device.here) for device in {device.here: device for device in devices}.values()]
    for device in found:
        if device.precision != found[0].precision:
            raise InputError(
                f"--devices: {found[0].name} and {device.name} do not compute in one precision, so that runs would "
                "differ by device; give devices of one kind"
            )
    return found[0]


def _on_processor(count: int) -> tuple[WorkerDevice, ...]:
    share = _threads_each(count)
    environment = {_THREADS: str(share)}
    return tuple(WorkerDevice(f"cpu {number}", "cpu", "cpu", share, environment) for number in range(1, count + 1))


def _on_gpus(indices: range | list[int]) -> tuple[WorkerDevice, ...]:
    """Each worker is shown its own GPU alone, so that nothing that it loads touches another."""
    share = _threads_each(len(indices))
    visible = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",")]
    names = [visible[index] if index < len(visible) and visible[index] else str(index) for index in indices]
    return tuple(
        WorkerDevice(f"cuda:{index}", f"cuda:{index}", "cuda", share, {_THREADS: str(share), _VISIBLE: name})
        for index, name in zip(indices, names, strict=True)
    )


def _threads_each(num_workers: int) -> int:
    """An even share of the threads that one process would compute with."""
    asked = os.environ.get(_THREADS, "").split(",")[0].strip()
    return max(1, (int(asked) if asked.isdigit() else num_cores()) // num_workers)
