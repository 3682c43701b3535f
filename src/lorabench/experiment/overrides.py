"""`--set key=value`: values that replace those of the experiment file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorabench.core.errors import ConfigError, near_matches
from lorabench.core.plain_yaml import parse_yaml, show_key, show_value


def apply_override(values: dict[str, Any], override: str, accepted: Sequence[str]) -> None:
    """Set one value of the experiment, whose sections are `accepted`. Raises ConfigError."""
    if not isinstance(override, str):
        raise ConfigError(f"--set {show_value(override)}: should be key=value, such as training.learning_rate=1e-3")
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set {show_value(override)}: should be key=value, such as training.learning_rate=1e-3")
    if parts[0] not in accepted:
        near = near_matches(parts[0], accepted)
        raise ConfigError(f"--set {show_key(parts[0])}: unknown key.{near} Accepted: {', '.join(accepted)}")
    target = values
    for part in parts[:-1]:
        inner = target.get(part)
        if inner is None:
            inner = target[part] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {show_key(key)}: {show_key(part)} holds a value, not a mapping")
        target = inner
    target[parts[-1]] = parse_yaml(text, f"--set {show_key(key)}")
