"""The catalogue of base models: `models.yaml`, and the user's own; an entry of a known source needs no code."""

from __future__ import annotations

from typing import Any

from lorabench.core.catalog import Catalogue
from lorabench.core.registry import Registry
from lorabench.models.entry import ModelSource

SOURCES: Registry[type[ModelSource]] = Registry("lorabench.models.sources", "SOURCE", "source of models")


MODELS = Catalogue("lorabench.models", "models", SOURCES, "model", "a folder")


def list_models() -> list[ModelSource]:
    """All models, in the file's order."""
    return list(MODELS.entries.values())


def get_model(name: str) -> ModelSource:
    """The model's entry. Raises UnknownNameError with near matches."""
    return MODELS.get(name)


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
            "listed_in": MODELS.place_of(entry.name) or "lorabench",
        }
        for entry in list_models()
    ]
