"""What a run ran on and what it was made of: machine, packages, code. Never a key, a user name or a host name."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from lorabench.core.device import Device
from lorabench.core.machine import memory_bytes, num_cores, processor_name
from lorabench.core.redaction import without_secrets
from lorabench.core.version import VERSION
from lorabench.records.schema import Environment, GpuFacts

_PACKAGES = ("torch", "transformers", "peft", "datasets", "tokenizers", "safetensors", "accelerate", "numpy", "wandb")
_PACKAGE_DIR = Path(__file__).resolve().parent.parent

NUMBER_ROOMS = (
    "core/canonical.py",
    "core/device.py",
    "core/machine.py",
    "corpora",
    "experiment/identity.py",
    "experiment/schema.py",
    "experiment/steps.py",
    "fast",
    "methods",
    "models",
    "runs",
    "samplepack",
    "scoring",
    "tokens",
    "training",
)
"""Folders and files whose code makes numbers: text, tokens, models and their C++, adapters, training, scoring.

`code_sha256` is of them alone, and checkpoints are tied to it: a change of the report, the terminal or a tracker leaves
checkpoints usable, a change of a kernel does not.
"""
_CODE_SUFFIXES = frozenset({".py", ".yaml", ".cpp", ".h", ".hpp"})


def now() -> str:
    """The time in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_environment(device: Device, command: list[str]) -> Environment:
    """The surroundings of a run. `command` is shown so that a reader can give it again."""
    commit, dirty = _git_state()
    return Environment(
        hostname_sha256=hashlib.sha256(socket.gethostname().encode()).hexdigest()[:16],
        device=device.type,
        device_name=device.name,
        num_devices=1,
        gpu=_gpu_facts(device.index) if device.type == "cuda" else None,
        processor=processor_name(),
        num_cores=num_cores(),
        memory_bytes=memory_bytes(),
        operating_system=f"{platform.system()} {platform.release()}",
        python_version=platform.python_version(),
        packages=_package_versions(),
        lorabench_version=VERSION,
        code_sha256=running_code_sha256(),
        git_commit=commit,
        git_dirty=dirty,
        command=without_secrets(shlex.join(map(without_secrets, command))),
    )


def gpu_clock(index: int | None) -> int | None:
    """MHz of the processors of an NVIDIA GPU at this moment; None where it cannot be found out."""
    clock = _driver_and_clock(_uuid(index))[1]
    return int(clock) if clock is not None and clock.isdigit() else None


def _uuid(index: int | None) -> str:
    """Of the GPU with this number among those visible; the current one where it has none."""
    import torch

    where = torch.device("cuda", torch.cuda.current_device() if index is None else index)
    return str(torch.cuda.get_device_properties(where).uuid)


def _gpu_facts(index: int | None) -> GpuFacts | None:
    """None on the head of a cluster, where runs are planned for the cards of its nodes."""
    import torch

    if not torch.cuda.is_available():
        return None
    driver, _ = _driver_and_clock(_uuid(index))
    try:
        triton: str | None = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = None
    return GpuFacts(
        driver=driver,
        clock_mhz=gpu_clock(index),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        triton=triton,
    )


def _driver_and_clock(uuid: str) -> tuple[str | None, str | None]:
    """As nvidia-smi says; None where it does not answer."""
    asked = ["nvidia-smi", f"--id=GPU-{uuid}", "--query-gpu=driver_version,clocks.sm", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
        driver, clock = (part.strip() for part in done.stdout.split(","))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None, None
    return driver, clock


@cache
def _package_versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@cache
def running_code_sha256() -> str:
    """`code_sha256` of this package."""
    return code_sha256(_PACKAGE_DIR)


def number_files(package: Path) -> list[Path]:
    """The files of the code that makes numbers, sorted by path."""
    places = [package / room for room in NUMBER_ROOMS]
    files = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place])]
    return sorted(path for path in files if path.suffix in _CODE_SUFFIXES)


def code_sha256(package: Path) -> str:
    """SHA-256 (hex) over the paths and contents of `number_files`."""
    digest = hashlib.sha256()
    for path in number_files(package):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def _git_state() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of lorabench's own checkout; None where it is installed without one."""
    if not (_PACKAGE_DIR.parent.parent / ".git").exists():
        return None, None
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(_PACKAGE_DIR.parent.parent), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def command_line() -> list[str]:
    """The command as it was typed, with the program's short name."""
    return ["lorabench", *sys.argv[1:]] if Path(sys.argv[0]).name.startswith("lorabench") else ["python", *sys.argv]
