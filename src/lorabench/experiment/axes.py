"""Axes: sections of an experiment file, in which a list stands for several runs, one for each of its values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import TypeAdapter, ValidationError

from lorabench.core.errors import ConfigError
from lorabench.core.plain_yaml import show_value
from lorabench.core.settings import Frozen, refuse_key, tidy

_SEVERAL_NAMES = ("target_modules", "modules_to_save")
"""Settings of which one value may be written as a list."""


class Range(Frozen):
    """An axis of which values are drawn."""

    log_uniform: tuple[float, float]
    """Lowest and highest."""

    def at(self, share: float) -> float:
        """The value at a share of the logarithm's range, to three digits."""
        low, high = map(math.log, self.log_uniform)
        return min(max(float(f"{math.exp(low + share * (high - low)):.3g}"), self.log_uniform[0]), self.log_uniform[1])


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
        if isinstance(value, Mapping) and set(value) == {"log_uniform"}:
            axes[key] = [_read_range(section, key, value, settings)]
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            raise ConfigError(f"{section}.{key}: the list is empty; give at least one value")
        axes[key] = [_read_value(section, key, item, settings) for item in values]
        if len(set(map(repr, axes[key]))) < len(axes[key]):
            raise ConfigError(f"{section}.{key}: a value is listed twice; list each once")
    return axes


def _read_range(section: str, key: str, value: Mapping[str, Any], settings: type[Frozen]) -> Range:
    """A range whose ends are values of the setting."""
    where, ends = f"{section}.{key}.log_uniform", value["log_uniform"]
    if settings.model_fields[key].annotation is not float:
        raise ConfigError(f"{where}: {key} is no continuous number; give a list of values")
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        raise ConfigError(f"{where}: {show_value(ends)} is not accepted; give the lowest and the highest value")
    low, high = (_read_value(section, key, end, settings) for end in ends)
    if not 0.0 < low < high:
        raise ConfigError(f"{where}: {show_value(ends)} is not accepted; the lowest is above 0 and below the highest")
    return Range(log_uniform=(low, high))


def _read_value(section: str, key: str, value: Any, settings: type[Frozen]) -> Any:
    if key in _SEVERAL_NAMES and isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        value = ",".join(value)
    annotation: Any = settings.model_fields[key].annotation
    if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
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
