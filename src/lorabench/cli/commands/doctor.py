"""The command `doctor`: what this machine has, and what that means for lorabench."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from typing import Any

from lorabench.cli.options import AsJson
from lorabench.core.errors import DiskError


def doctor(as_json: AsJson = False) -> None:
    """Show what this machine has, and what that means."""
    from lorabench.cli.views.rows import print_json

    findings = examine()
    if as_json:
        print_json({finding.name: finding.value for finding in findings})
    else:
        print_findings(findings)


@dataclass(frozen=True)
class Finding:
    """One fact and its meaning for the user."""

    name: str
    value: Any
    meaning: str


def examine() -> list[Finding]:
    """Look at processor, memory, GPUs, compiler, cache, hub and tracking. Nothing is changed."""
    from lorabench.core import machine
    from lorabench.core.device import choose_device, count_nvidia_gpus
    from lorabench.core.formatting import rough_size

    num_gpus = count_nvidia_gpus()
    device = choose_device()
    bf16 = device.supports_bf16
    compiler = machine.has_compiler()
    hub = hub_is_reachable()
    return [
        Finding("cores", machine.num_cores(), "used by training and evaluation"),
        Finding("memory", rough_size(machine.memory_bytes()), "bounds the model and the micro-batch"),
        Finding("gpus", num_gpus, device.note or ("runs go there" if device.is_gpu else "runs go to the processor")),
        Finding("device", str(device), f"{device.name}; --device chooses another"),
        Finding(
            "bfloat16",
            bf16,
            f"precision auto means {device.precision}" + ("" if bf16 else ": there are no bfloat16 units"),
        ),
        Finding(
            "compiler", compiler, "small regions are compiled" if compiler else "everything runs uncompiled, slower"
        ),
        _cache(),
        Finding(
            "hub",
            hub,
            "hub models and corpora can be fetched" if hub else "only the sample pack, local files and the cache",
        ),
        Finding("hub token", bool(os.environ.get("HF_TOKEN")), "needed for gated models such as gemma-2b"),
        Finding(
            "wandb",
            bool(os.environ.get("WANDB_API_KEY")),
            "runs go online" if os.environ.get("WANDB_API_KEY") else "offline, to be synced later with wandb sync",
        ),
        *(
            Finding(name, importlib.util.find_spec(name) is not None, f"optional: pip install 'lorabench[{name}]'")
            for name in ("trackio", "tensorboard", "mlflow")
        ),
    ]


def _cache() -> Finding:
    from lorabench.core.formatting import rough_size
    from lorabench.core.storage import cache_root

    try:
        root = cache_root()
        existing = next(path for path in (root, *root.parents) if os.path.exists(path))
        free = rough_size(shutil.disk_usage(existing).free)
    except (DiskError, OSError) as error:
        return Finding("cache", "none", str(error))
    return Finding("cache", str(root), f"{free} free there; LORABENCH_CACHE moves it")


def hub_is_reachable(timeout_seconds: float = 3.0) -> bool:
    """Whether the hub (HF_ENDPOINT, else the public one) answers."""
    import urllib.error
    import urllib.request

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not endpoint.startswith(("https://", "http://")) or os.environ.get("HF_HUB_OFFLINE") in ("1", "true", "yes"):
        return False
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def print_findings(findings: list[Finding]) -> None:
    """One line per finding."""
    for finding in findings:
        shown = (
            {True: "yes", False: "no"}.get(finding.value, finding.value)
            if isinstance(finding.value, bool)
            else finding.value
        )
        print(f"{finding.name:12} {shown!s:24} {finding.meaning}")
