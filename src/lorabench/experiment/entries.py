"""Entries of the list `adapters`: the axes that each of them has, and what it is tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from lorabench.core.errors import ConfigError
from lorabench.core.plain_yaml import show_value
from lorabench.core.settings import Frozen
from lorabench.corpora.references import CorpusReference
from lorabench.experiment.adapter_axes import read_adapter_axes
from lorabench.experiment.axes import read_axes

Corpus = str | CorpusReference
_PLACES = ("models", "datasets")
_NO_AXES = {"devices": "on any number", "gradient_checkpointing": "with it and without"}
"""Training values that change no run's figures, and so with what runs are the same."""


class AdapterEntry(Frozen):
    """One entry of `adapters`: a product of its axes, with training values of its own before the experiment's."""

    adapter: dict[str, list[Any]] = Field(default_factory=dict)
    training: dict[str, list[Any]] = Field(default_factory=dict)
    models: tuple[str, ...] = ()
    """Of the experiment's, as they are written there; none: all of them."""
    datasets: tuple[str, ...] = ()

    def is_for(self, model: str | None, dataset: Corpus | None) -> bool:
        """Whether it is tried with this model on this corpus; None stands for any."""
        has_model = not self.models or model is None or model in self.models
        return has_model and (not self.datasets or dataset is None or _name_of(dataset) in self.datasets)

    def num_places(self, models: Sequence[str], datasets: Sequence[Corpus]) -> int:
        """On how many pairs of the experiment's models and datasets it is tried."""
        return sum(self.is_for(model, dataset) for model in models for dataset in datasets)

    def as_written(self) -> dict[str, Any]:
        """As the experiment file has it."""
        values = self.model_dump(mode="json")
        training = {"training": as_written(values["training"])} if self.training else {}
        return as_written(values["adapter"]) | {key: values[key] for key in _PLACES if values[key]} | training


def check_places(
    entries: Sequence[AdapterEntry], models: Sequence[str], datasets: Sequence[Corpus], *, is_search: bool
) -> None:
    """Raise ConfigError where entries name what the experiment does not have, or it has what none of them takes."""
    for key, known in (("models", list(models)), ("datasets", list(map(_name_of, datasets)))):
        taken = {name for entry in entries for name in getattr(entry, key) or known}
        for index, entry in enumerate(entries):
            if is_search and getattr(entry, key):
                raise ConfigError(f"adapters[{index}].{key}: a search tries all entries everywhere; leave it out")
            for name in getattr(entry, key):
                if name not in known:
                    raise ConfigError(
                        f"adapters[{index}].{key}: {show_value(name)} is none of the experiment's {key}; accepted: "
                        f"{', '.join(known)}"
                    )
        if unused := [name for name in known if entries and name not in taken]:
            raise ConfigError(f"{key}: no entry of adapters takes {unused[0]}; leave it out, or name it in an entry")


def _name_of(dataset: Corpus) -> str:
    """How entries name it: as the experiment does, or by the name among its parts."""
    return dataset if isinstance(dataset, str) else dataset.name or str(dataset)


def read_training_axes(section: str, raw: Any, settings: type[Frozen]) -> dict[str, list[Any]]:
    """The axes of a section of training values; what changes no run's figures is none."""
    axes = read_axes(section, raw, settings)
    for key, why in _NO_AXES.items():
        if len(axes.get(key, ())) > 1:
            raise ConfigError(f"{section}.{key}: a list is not accepted; runs are the same {why}, so give one")
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
        own = {key: value for key, value in entry.items() if key not in ("training", *_PLACES)}
        _require_own(f"{section}.training", entry.get("training"))
        training = read_training_axes(f"{section}.training", entry.get("training"), training_settings)
        places = {key: _read_names(f"{section}.{key}", entry[key]) for key in _PLACES if key in entry}
        entries.append(AdapterEntry(adapter=read_adapter_axes(section, own), training=training, **places))
    if not entries:
        raise ConfigError("adapters: the list is empty; give at least one value")
    if len(set(map(repr, entries))) < len(entries):
        raise ConfigError("adapters: an entry is listed twice; list each once")
    return entries


def _require_own(section: str, raw: Any) -> None:
    """Raise ConfigError for what an entry cannot have for itself."""
    for key in _NO_AXES:
        if isinstance(raw, Mapping) and key in raw:
            raise ConfigError(f"{section}.{key}: it holds for all runs of an experiment; give it as training.{key}")


def _read_names(section: str, raw: Any) -> tuple[str, ...]:
    names = [raw] if isinstance(raw, str) else raw
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{section}: {show_value(raw)} is not accepted; give names from the experiment's own list")
    return tuple(names)


def as_written(axes: Mapping[str, list[Any]]) -> dict[str, Any]:
    """An axis of one value as that value."""
    return {key: axis[0] if len(axis) == 1 else axis for key, axis in axes.items()}
