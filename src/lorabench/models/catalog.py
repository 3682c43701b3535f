"""The catalogue of base models: `models.yaml`, and the user's own; an entry of a known source needs no code."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from lorabench.core.catalog import read_catalogue
from lorabench.core.errors import UnknownNameError, near_matches
from lorabench.core.registry import Registry
from lorabench.models.entry import ModelSource

SOURCES: Registry[type[ModelSource]] = Registry("lorabench.models.sources", "SOURCE", "source of models")


@cache
def _models() -> dict[str, ModelSource]:
    text = resources.files("lorabench.models").joinpath("models.yaml").read_text(encoding="utf-8")
    return read_catalogue(text, "models", SOURCES, "models.yaml")


def list_models() -> list[ModelSource]:
    """All models, in the file's order."""
    return list(_models().values())


def get_model(name: str) -> ModelSource:
    """The model's entry. Raises UnknownNameError with near matches."""
    if name not in _models():
        raise UnknownNameError(
            f"model {name!r} is neither a catalogue name nor a folder.{near_matches(name, _models())} "
            "`lorabench models` lists the names"
        )
    return _models()[name]


def model_rows() -> list[dict[str, Any]]:
    """What `lorabench models` shows, a row per model."""
    return [
        {
            "name": entry.name,
            "parameters": entry.model_shape().num_parameters,
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
