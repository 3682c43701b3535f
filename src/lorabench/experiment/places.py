"""Where an experiment file's paths lie: beside the file first, then in the working folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorabench.core.catalog import look_beside
from lorabench.core.errors import ConfigError, ModelError
from lorabench.core.settings import check_reference
from lorabench.models.locate import beside


def with_places(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The experiment's values, with the paths of what lies beside `file`, whose catalogue counts from now on.

    Raises ConfigError for what is nowhere.
    """
    look_beside(file)
    return {key: _models_beside(value, file) if key == "models" else value for key, value in values.items()}


def _models_beside(models: Any, file: Path) -> Any:
    """The models; what is of the wrong type is left for the schema to refuse."""
    try:
        named = [models] if isinstance(models, str) else models
        if not isinstance(named, list) or not all(isinstance(model, str) and model for model in named):
            return models
        return [beside(check_reference(model), file.parent) for model in named]
    except ValueError:
        return models
    except ModelError as error:
        raise ConfigError(f"{file}: {error}") from None
