"""The catalogue of base models: `models.yaml`, and the user's own; an entry of a known source needs no code."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from lorabench.core.catalog import HUB_ID, Catalogue, FromHub
from lorabench.core.registry import Registry
from lorabench.core.revisions import given_name
from lorabench.models.entry import ModelSource

SOURCES: Registry[type[ModelSource]] = Registry("lorabench.models.sources", "SOURCE", "source of models")


MODELS = Catalogue("lorabench.models", "models", SOURCES, "model", "a folder")


def list_models() -> list[ModelSource]:
    """All models, in the file's order."""
    return list(MODELS.entries.values())


def get_model(name: str) -> ModelSource:
    """The model's entry. Raises UnknownNameError with near matches."""
    return MODELS.get(name)


def entries_of(repository: str) -> list[ModelSource]:
    """What the catalogues say of a repository of the hub."""
    return [entry for entry in list_models() if isinstance(entry, FromHub) and entry.repository == repository]


def was_trained_on(model: str, contaminated: Collection[str]) -> bool:
    """Whether a model of any name is one of these of the catalogue; a hub id is those of its repository."""
    entry, on_hub = MODELS.entries.get(model), HUB_ID.fullmatch(model)
    repository = entry.repository if isinstance(entry, FromHub) else on_hub["repository"] if on_hub else None
    same = [entry.name for entry in entries_of(repository)] if repository else []
    return any(name in contaminated for name in (model, given_name(model), *same))


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
