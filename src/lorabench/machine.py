"""What this machine is and can do, and setting up the process for it. Imports torch only where a GPU is asked about."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lorabench.errors import InputError

if TYPE_CHECKING:
    import torch

_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 16384}
"""Inputs of one micro-batch where the user does not say: enough to fill the matrix units, little enough to fit."""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return min(total, int(limit))
    except (OSError, ValueError):
        return total


@cache
def processor_name() -> str:
    """The processor, for people."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def num_gpus() -> int:
    """NVIDIA GPUs, without importing torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or shutil.which("nvidia-smi") is None:
        return 0
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if done.returncode == 0 else 0


@cache
def supports_bf16() -> bool:
    """Whether bfloat16 products run on units of their own: AVX512-BF16, AMX, or a GPU of Ampere or later."""
    if num_gpus():
        import torch

        return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & _processor_flags())


@cache
def _processor_flags() -> frozenset[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def has_compiler() -> bool:
    """Whether torch could compile regions for the processor."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


@cache
def prepare_process() -> None:
    """Set threads and the allocator once, so that no user needs to know an environment variable for speed.

    glibc returns large blocks to the system and faults them in again at each step; keeping them is worth 5 to 15 %.
    """
    import torch

    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(num_cores())
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        return


def trim_heap() -> None:
    """Give freed memory back to the system, which `prepare_process` keeps the allocator from doing by itself."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def describe_device(asked: str | None = None) -> tuple[str, str, int]:
    """The device to run on, its name for people, and how many are used. Raises InputError for one that is not there."""
    if asked not in (None, "cpu", "cuda"):
        raise InputError(f"device: {asked!r} is not accepted; accepted: cpu, cuda")
    if asked == "cpu" or (asked is None and num_gpus() == 0):
        return "cpu", processor_name(), 1
    import torch

    if not torch.cuda.is_available():
        if asked is None:
            return describe_device("cpu")
        raise InputError("device: cuda was asked for, but torch finds no GPU here; accepted here: cpu")
    return "cuda", torch.cuda.get_device_name(), 1


def choose_micro_batch(batch_size: int, context_length: int, device_type: str) -> int:
    """Rows computed at once, at most the batch."""
    return max(1, min(batch_size, _TOKENS_AT_ONCE[device_type] // context_length))


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_memory(device: torch.device) -> int:
    """Peak bytes since the last reset: allocated on a GPU, resident on a processor."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
