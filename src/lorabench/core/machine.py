"""What this machine is and can do, and setting up the process for it."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import shutil
from functools import cache
from pathlib import Path


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_whole_cores() -> int:
    """The same without those that share their units with another one of them (hyper-threads)."""
    if not hasattr(os, "sched_getaffinity"):
        return num_cores()
    paths = (f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings" for number in os.sched_getaffinity(0))
    try:
        return len({Path(path).read_text(encoding="ascii") for path in paths})
    except OSError:
        return num_cores()


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


def processor_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 on units of its own: AVX512-BF16, AMX, or Arm's."""
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

    bitsandbytes warns of every product that it rounds its inputs, and when it is imported of kernels that it does not
    find; PEFT imports it wherever it is installed.
    glibc returns large blocks to the system and faults them in again at each step; keeping them is worth 5 to 15 %.
    """
    import torch

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
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
