"""Entries of the list `adapters`, and the axes that each of them has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from lorabench.core.errors import ConfigError
from lorabench.core.plain_yaml import show_value
from lorabench.core.settings import Frozen
from lorabench.experiment.adapter_axes import read_adapter_axes
from lorabench.experiment.axes import read_axes


class AdapterEntry(Frozen):
    """One entry of `adapters`: a product of its axes, with training values of its own before the experiment's."""

    adapter: dict[str, list[Any]] = Field(default_factory=dict)
    training: dict[str, list[Any]] = Field(default_factory=dict)


def read_training_axes(section: str, raw: Any, settings: type[Frozen]) -> dict[str, list[Any]]:
    """The axes of a section of training values; `devices` is none."""
    axes = read_axes(section, raw, settings)
    if len(axes.get("devices", ())) > 1:
        raise ConfigError(f"{section}.devices: a list is not accepted; runs are the same on any number, so give one")
    return axes


def read_entries(raw: Any, training_settings: type[Frozen]) -> list[AdapterEntry]:
    """The list `adapters`, each entry by itself."""
    if not isinstance(raw, list | tuple):
        raise ConfigError(f"adapters: should be a list of mappings, got {show_value(raw)}; one mapping is `adapter`")
    entries = []
    for index, entry in enumerate(raw):
        section = f"adapters[{index}]"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{section}: should be a mapping of keys to values, got {show_value(entry)}")
        own = {key: value for key, value in entry.items() if key != "training"}
        training = read_training_axes(f"{section}.training", entry.get("training"), training_settings)
        entries.append(AdapterEntry(adapter=read_adapter_axes(section, own), training=training))
    if not entries:
        raise ConfigError("adapters: the list is empty; give at least one value")
    if len(set(map(repr, entries))) < len(entries):
        raise ConfigError("adapters: an entry is listed twice; list each once")
    return entries


def as_written(axes: Mapping[str, list[Any]]) -> dict[str, Any]:
    """An axis of one value as that value."""
    return {key: axis[0] if len(axis) == 1 else axis for key, axis in axes.items()}
