"""Reads what W&B wrote offline, with W&B's own reader."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from wandb.util import get_core_path


def offline_folders(output_dir: Path) -> list[Path]:
    """The W&B runs under an output folder, in the order they began."""
    return sorted((output_dir / "wandb").glob("offline-run-*"))


def md5_of(path: Path) -> str:
    """As W&B's manifests have it."""
    return base64.b64encode(hashlib.md5(path.read_bytes()).digest()).decode("ascii")


def inspect(folder: Path) -> list[dict[str, Any]]:
    """Every entry of one run's file."""
    (file,) = folder.glob("run-*.wandb")
    command = [get_core_path(), "leet", "inspect", "-no-observability", "-json", "-run-file", str(file)]
    output = subprocess.run([*command, str(folder.parent)], check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def of_kind(entries: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Entries of one kind: run, config, history, summary, stats, artifact, exit."""
    return [entry[kind] for entry in entries if entry["type"] == kind]


def merged(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """What all updates of a kind come to."""
    values: dict[str, Any] = {}
    for entry in of_kind(entries, kind):
        values |= entry.get("update", {})
    return values
