"""What an experiment file may say in short, such as one model where a list of them is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorabench.core.errors import ConfigError


def written_out(values: dict[str, Any]) -> dict[str, Any]:
    """The experiment's values with lists for what is one. Raises ConfigError where a value is listed twice."""
    for key in ("models", "datasets", "seeds"):
        if isinstance(values.get(key), str | int | Mapping):
            values[key] = [values[key]]
        if isinstance(values.get(key), Sequence) and len(set(map(repr, values[key]))) < len(values[key]):
            raise ConfigError(f"{key}: a value is listed twice; list each once")
    evaluation = values.get("evaluation")
    if isinstance(evaluation, Mapping):
        values["evaluation"] = _evaluation(dict(evaluation))
    return values


def _evaluation(section: dict[str, Any]) -> dict[str, Any]:
    if isinstance(section.get("also_on"), str | Mapping):
        section["also_on"] = [section["also_on"]]
    if isinstance(section.get("tasks"), str):
        section["tasks"] = [section["tasks"]]
    if isinstance(section.get("generate"), str | list):
        section["generate"] = {"metric": section["generate"]}
    return section
