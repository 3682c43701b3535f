"""The device that a command computes on: chosen once, before planning, and handed to everything that depends on it.

Choosing imports torch only where a GPU was asked for or NVIDIA's driver shows one, so that a plan on a machine without
GPUs stays quick. The functions at the end do what torch names differently on each kind of device.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lorabench.core.errors import InputError
from lorabench.core.machine import available_memory_bytes, memory_bytes, processor_has_bf16, processor_name, trim_heap

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

DeviceType = Literal["cpu", "cuda", "mps"]
TRAINING_TOKENS: dict[str, int] = {"cpu": 2048, "cuda": 16384, "mps": 4096}
"""Inputs of one micro-batch where the user gives none: enough to fill the matrix units, little enough to fit."""
EVALUATION_TOKENS: dict[str, int] = {"cpu": 2048, "cuda": 32768, "mps": 4096}
"""Inputs scored at once."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Device:
    """One processor or GPU. `str(device)` is torch's name for it: `cpu`, `cuda`, `cuda:1`, `mps`."""

    type: DeviceType
    name: str
    """For people: the processor's or the card's."""
    memory_bytes: int
    supports_bf16: bool
    """Whether bfloat16 products run on units of their own."""
    index: int | None = None
    """Of the GPU among those visible; None for the only one or the current one."""
    note: str = ""
    """A warning for the user, such as a GPU that cannot be used; empty where there is none."""

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    @property
    def is_gpu(self) -> bool:
        """Whether it is one."""
        return self.type != "cpu"

    @property
    def precision(self) -> Literal["bf16", "fp16", "fp32"]:
        """What precision `auto` means: float16 on NVIDIA's cards without bfloat16 units, which have some for it."""
        return "bf16" if self.supports_bf16 else "fp16" if self.type == "cuda" else "fp32"

    def micro_batch(self, batch_size: int, context_length: int) -> int:
        """Rows computed at once by default, at most the batch."""
        return max(1, min(batch_size, TRAINING_TOKENS[self.type] // context_length))


def choose_device(name: str | None = None) -> Device:
    """The device that was asked for, or else an NVIDIA GPU where torch can use one, or else the processor.

    Raises InputError, which lists what is accepted here, for a device that is not there.
    """
    if name is None:
        return _default_device()
    if name == "cpu":
        return _processor()
    if not isinstance(name, str) or not re.fullmatch(r"cuda(:\d{1,3})?|mps", name):
        raise InputError(f"device: {str(name)[:80]!r} is not accepted; accepted here: {', '.join(_accepted())}")
    if name not in (accepted := _accepted()):
        raise InputError(f"device: {_why_not(name)}; accepted here: {', '.join(accepted)}")
    index = name.partition(":")[2]
    return _apple_gpu() if name == "mps" else _cuda(int(index) if index else None)


def _default_device() -> Device:
    shown = count_nvidia_gpus()
    if shown == 0:
        return _processor(_silent_driver())
    if num_usable_gpus():
        return _cuda(None)
    gpus = "an NVIDIA GPU" if shown == 1 else f"{shown} NVIDIA GPUs"
    return _processor(
        f"nvidia-smi shows {gpus}, but torch cannot use {'it' if shown == 1 else 'them'} ({_cuda_problem()}): "
        "this command computes on the processor"
    )


def _accepted() -> list[str]:
    """Every name that `choose_device` takes on this machine."""
    import torch

    num_gpus = num_usable_gpus()
    names = ["cpu", *(["cuda"] if num_gpus else []), *(f"cuda:{index}" for index in range(num_gpus))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def _why_not(name: str) -> str:
    num_gpus = num_usable_gpus()
    if name == "mps":
        return "mps was asked for, but this torch finds no Apple GPU"
    if num_gpus:
        return f"{name} was asked for, but torch finds {num_gpus} GPU{'s' * (num_gpus > 1)} here"
    if gpus_are_hidden():
        return f"{name} was asked for, but {_VISIBLE}={os.environ[_VISIBLE]} hides every GPU"
    return f"{name} was asked for, but torch finds no GPU here ({_cuda_problem()})"


def gpus_are_hidden() -> bool:
    """Whether CUDA_VISIBLE_DEVICES says that no GPU is to be used. CUDA reads it up to the first entry that is none."""
    first = os.environ.get(_VISIBLE, "0").split(",")[0].strip()
    return first in ("", "NoDevFiles", "none", "void") or bool(re.fullmatch(r"-\d+", first))


def count_nvidia_gpus() -> int:
    """GPUs that NVIDIA's driver shows and CUDA_VISIBLE_DEVICES does not hide, without importing torch."""
    return 0 if gpus_are_hidden() else sum(line.startswith("GPU ") for line in _nvidia_smi()[0].splitlines())


def _silent_driver() -> str:
    """The warning about a driver that is installed and does not answer."""
    complaint = "" if gpus_are_hidden() else _nvidia_smi()[1]
    return f"nvidia-smi does not answer ({complaint}): this command computes on the processor" if complaint else ""


@cache
def _nvidia_smi() -> tuple[str, str]:
    """What `nvidia-smi --list-gpus` prints, and the first line of its complaint where it fails."""
    if shutil.which("nvidia-smi") is None:
        return "", ""
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return "", type(error).__name__
    if done.returncode == 0:
        return done.stdout, ""
    return "", _first_line(done.stderr or done.stdout) or f"exit code {done.returncode}"


def num_usable_gpus() -> int:
    """GPUs that torch can use. What torch warns of is kept for `_cuda_problem`."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _cuda_problem() -> str:
    """Why torch has no GPU, in its own words where it has some."""
    import torch

    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return f"torch {torch.__version__} was built without CUDA"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return _first_line(str(error)) or type(error).__name__
    visible = os.environ.get(_VISIBLE)
    return "torch does not say why" if visible is None else f"with {_VISIBLE}={visible} none is left"


def _first_line(text: str) -> str:
    return " ".join(text.strip().splitlines()[0].split())[:200].rstrip(".") if text.strip() else ""


def _processor(note: str = "") -> Device:
    return Device("cpu", processor_name(), memory_bytes(), processor_has_bf16(), note=note)


def _cuda(index: int | None) -> Device:
    import torch

    where = torch.device("cuda", torch.cuda.current_device() if index is None else index)
    properties = torch.cuda.get_device_properties(where)
    return Device("cuda", torch.cuda.get_device_name(where), properties.total_memory, properties.major >= 8, index)


def _apple_gpu() -> Device:
    """Apple's GPU, which shares the machine's memory. Whether bfloat16 pays there was not measured: auto means fp32."""
    import torch

    return Device("mps", f"{processor_name()} GPU", torch.mps.recommended_max_memory(), supports_bf16=False)


def upload(arrays: Sequence[npt.NDArray[np.int64]], device: torch.device) -> list[torch.Tensor]:
    """Vectors of numbers on the device: all of them in one copy, for which a GPU's stream of work does not wait."""
    import numpy as np
    import torch

    if device.type == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    together = torch.from_numpy(np.concatenate(arrays))
    if device.type == "cuda":
        together = together.pin_memory()
    return list(together.to(device, non_blocking=True).split([len(array) for array in arrays]))


def read(numbers: Sequence[torch.Tensor]) -> list[float]:
    """Scalars of one device, in one copy. This waits for a GPU: what can be done meanwhile comes before it."""
    import torch

    values: list[float] = torch.stack(list(numbers)).tolist()
    return values


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked to do, so that measured times include it."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def release_memory(device: torch.device) -> None:
    """Give blocks that torch keeps back to the system."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    else:
        trim_heap()


def random_state(device: torch.device) -> torch.Tensor | None:
    """The state of the device's own random numbers, uint8 on the processor; None for the processor itself."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def set_random_state(device: torch.device, state: torch.Tensor) -> None:
    """Go on with a state of `random_state`."""
    import torch

    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """What is drawn inside, on the processor or on `device`, leaves torch's random state as it was."""
    import torch

    on_processor, on_device = torch.get_rng_state(), random_state(device)
    try:
        yield
    finally:
        torch.set_rng_state(on_processor)
        if on_device is not None:
            set_random_state(device, on_device)


def memory_for_this_process(device: Device) -> int:
    """Bytes that the device has for this process in all: what is free, and what the process holds already."""
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(torch.device(str(device)))
        return int(free) + torch.cuda.memory_reserved(torch.device(str(device)))
    return device.memory_bytes if device.is_gpu else available_memory_bytes()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "mps":
        torch.mps.empty_cache()
    else:
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return


def peak_reserved_memory(device: torch.device) -> int | None:
    """Peak bytes that torch took from an NVIDIA GPU since the last reset; None elsewhere."""
    import torch

    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


def peak_memory(device: torch.device) -> int:
    """Peak bytes since the last reset: allocated on an NVIDIA GPU, resident on a processor.

    Apple's driver counts no peak; what torch holds of it grows until the next reset, and is that peak.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
