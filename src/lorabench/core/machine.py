"""What this machine is and can do, and setting up the process for it."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import shutil
from dataclasses import dataclass
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


@cache
def memory_bytes() -> int:
    """Memory of the machine, or of the smallest control group around this process where that is less."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *(group.limit for group in control_groups())])


def available_memory_bytes() -> int:
    """What this process may hold in all: what it holds, and what machine and control groups have left for it.

    Where the machine does not tell, all of its memory.
    """
    own = _numbers(Path("/proc/self/status")).get("VmRSS", 0) << 10
    left = _numbers(Path("/proc/meminfo")).get("MemAvailable", memory_bytes() >> 10) << 10
    return min(memory_bytes(), own + min([left, *(group.limit - group.used for group in control_groups())]))


@dataclass(frozen=True)
class ControlGroup:
    """One that limits memory, in bytes; `used` is without what is kept of files and can be dropped."""

    limit: int
    used: int


def control_groups(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[ControlGroup]:
    """Those around this process that limit its memory: its own and all above it, of version 2 and of version 1."""
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        hierarchy, controllers, path = (*line.split(":", 2), "", "")[:3]
        is_second = hierarchy == "0"
        if not is_second and "memory" not in controllers.split(","):
            continue
        top, names = (root, _SECOND) if is_second else (root / "memory", _FIRST)
        inner = top.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
        found += [_read_group(folder, *names) for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return [group for group in found if group is not None]


_SECOND = ("memory.max", "memory.current", "inactive_file")
_FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _read_group(folder: Path, limit: str, used: str, dropped: str) -> ControlGroup | None:
    """None where it sets no limit, or none that can be read."""
    try:
        most, now = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
    except (OSError, ValueError):
        return None
    return ControlGroup(most, now - _numbers(folder / "memory.stat").get(dropped, 0))


def _numbers(path: Path) -> dict[str, int]:
    """Names and numbers of a file whose lines are `name number` or `name: number unit`; empty where there is none."""
    try:
        words = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return {}
    return {line[0].rstrip(":"): int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


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
