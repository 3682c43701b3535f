"""What a run *is*: a hash of its scientific configuration and of the pinned things it uses, apart from where it runs.

Two runs with one id would measure the same thing; a canonical form that refuses what it cannot write keeps it so.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from lorabench.config import Frozen, RunSpec

SCIENCE_VERSION = 1
"""Raised when the meaning of a number changes (protocol, packing, initialisation): old runs are then other runs."""


def canonical(value: Any) -> str:
    """Write plain values as JSON in one way only. Raises TypeError for anything else, ValueError for NaN."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no canonical form")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, Frozen):
        return {key: _plain(getattr(value, key)) for key in type(value).model_fields}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("only text can be a key in a canonical form")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical form")


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of the canonical form."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


def run_id(spec: RunSpec) -> str:
    """A readable name and ten hex digits of the fingerprint; safe as a file name.

    The spec must be resolved: revisions known, precision chosen.
    """
    if spec.training.precision == "auto":
        raise ValueError("the precision must be chosen before a run has an identity")
    digest = fingerprint({"science": SCIENCE_VERSION, "spec": spec})[:10]
    adapter, training = spec.adapter, spec.training
    rank = "" if adapter.method == "full" else f"-r{adapter.rank}"
    readable = f"{spec.model}_{spec.dataset}_{adapter.method}{rank}-lr{training.learning_rate:g}-s{spec.seed}"
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', readable).strip('.-')[:120]}_{digest}"
