"""Axes: sections of an experiment file, in which a list stands for several runs, one for each of its values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from lorabench.core.errors import ConfigError
from lorabench.core.plain_yaml import show_value
from lorabench.core.settings import Frozen, refuse_key, tidy


def read_axes(section: str, raw: Any, settings: type[Frozen]) -> dict[str, list[Any]]:
    """Check every value of a section by itself, so that the message can name the key."""
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{section}: should be a mapping of keys to values, got {show_value(raw)}")
    axes: dict[str, list[Any]] = {}
    for key, value in raw.items():
        if key not in settings.model_fields:
            refuse_key(section, key, settings)
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            raise ConfigError(f"{section}.{key}: the list is empty; give at least one value")
        axes[key] = [_read_value(section, key, item, settings) for item in values]
        if len(set(map(repr, axes[key]))) < len(axes[key]):
            raise ConfigError(f"{section}.{key}: a value is listed twice; list each once")
    return axes


def _read_value(section: str, key: str, value: Any, settings: type[Frozen]) -> Any:
    if key == "target_modules" and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        value = ",".join(value)
    if isinstance(value, bool) and settings.model_fields[key].annotation is not bool:
        raise ConfigError(f"{section}.{key}: {show_value(value)} is not accepted; true and false mean nothing here")
    try:
        return _field_of(settings, key).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise ConfigError(f"{section}.{key}: {show_value(value)} is not accepted; {tidy(problem)}") from None


@cache
def _field_of(settings: type[Frozen], key: str) -> TypeAdapter[Any]:
    """Checks one setting by itself, whatever the others are."""
    field = settings.model_fields[key]
    checked: Any = Annotated[field.annotation, field]
    return TypeAdapter(checked)


def points(axes: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """The product of the axes."""
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
