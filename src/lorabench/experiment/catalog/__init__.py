"""The catalogue: which base models and corpora lorabench knows by name, and where each comes from.

`models.yaml` and `datasets.yaml` hold the entries; adding one needs no code. `schema.py` says what an entry may hold.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lorabench.core.errors import ConfigError, UnknownNameError, near_matches
from lorabench.experiment.catalog.schema import DatasetEntry, Entry, ModelEntry

__all__ = [
    "DatasetEntry",
    "ModelEntry",
    "dataset_rows",
    "get_dataset",
    "get_model",
    "list_datasets",
    "list_models",
    "model_rows",
    "read_entries",
]

_E = TypeVar("_E", bound=Entry)


def read_entries(text: str, kind: type[_E], where: str) -> dict[str, _E]:
    """The entries of a catalogue file: a mapping from name to fields. Raises ConfigError naming entry and field."""
    try:
        values = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: should be a mapping from name to entry")
    entries = {}
    for name, fields in values.items():
        if not isinstance(fields, dict):
            raise ConfigError(f"{where}: {name!r} should be a mapping")
        try:
            entries[str(name)] = kind(name=str(name), **fields)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "entry"
            raise ConfigError(f"{where}: {name}: {field}: {first['msg']}") from None
        except TypeError as error:
            raise ConfigError(f"{where}: {name}: {error}") from None
    return entries


@cache
def _models() -> dict[str, ModelEntry]:
    return read_entries(_read("models.yaml"), ModelEntry, "models.yaml")


@cache
def _datasets() -> dict[str, DatasetEntry]:
    return read_entries(_read("datasets.yaml"), DatasetEntry, "datasets.yaml")


def _read(name: str) -> str:
    return resources.files("lorabench.experiment.catalog").joinpath(name).read_text(encoding="utf-8")


def list_models() -> list[ModelEntry]:
    """All models, in the file's order."""
    return list(_models().values())


def list_datasets() -> list[DatasetEntry]:
    """All corpora, in the file's order."""
    return list(_datasets().values())


def get_model(name: str) -> ModelEntry:
    """The model's entry. Raises UnknownNameError with near matches."""
    if name not in _models():
        raise UnknownNameError(
            f"model {name!r} is neither a catalogue name nor a folder.{near_matches(name, _models())} "
            "`lorabench models` lists the names"
        )
    return _models()[name]


def get_dataset(name: str) -> DatasetEntry:
    """The corpus's entry. Raises UnknownNameError with near matches."""
    if name not in _datasets():
        raise UnknownNameError(
            f"dataset {name!r} is neither a catalogue name nor a .txt, .jsonl or .parquet file."
            f"{near_matches(name, _datasets())} `lorabench datasets` lists the names"
        )
    return _datasets()[name]


def model_rows() -> list[dict[str, Any]]:
    """What `lorabench models` shows, a row per model."""
    return [
        {
            "name": entry.name,
            "parameters": entry.num_parameters,
            "family": entry.family,
            "source": entry.source,
            "comes_from": entry.origin,
            "revision": entry.shown_revision,
            "licence": entry.licence,
            "gated": "yes" if entry.gated else "no",
            "download_bytes": entry.download_bytes,
            "notes": entry.notes,
        }
        for entry in list_models()
    ]


def dataset_rows() -> list[dict[str, Any]]:
    """What `lorabench datasets` shows, a row per corpus."""
    return [
        {
            "name": entry.name,
            "domain": entry.domain,
            "source": entry.source,
            "comes_from": entry.origin,
            "revision": entry.shown_revision,
            "licence": entry.licence,
            "synthetic": "yes" if entry.synthetic else "no",
            "text_bytes": entry.approximate_bytes,
            "download_bytes": entry.download_bytes,
            "contaminates": ", ".join(entry.contaminates) or None,
            "notes": entry.notes,
        }
        for entry in list_datasets()
    ]
