"""Axes: sections of an experiment file, in which a list stands for several runs, one for each of its values."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import TypeAdapter, ValidationError

from lorabench.core.errors import ConfigError
from lorabench.core.plain_yaml import show_value
from lorabench.core.settings import Frozen, refuse_key, tidy

_SEVERAL_NAMES = ("target_modules", "modules_to_save")
"""Settings of which one value may be written as a list."""

Ends = tuple[int, int] | tuple[float, float]
"""Lowest and highest; of whole numbers only those are drawn."""
DRAWN_WHOLE_NUMBERS = frozenset({"rank"})
"""Settings that are whole numbers of which a range means something; of the others a few values are tried."""


class Range(Frozen, ABC):
    """An axis of which values are drawn."""

    @property
    @abstractmethod
    def ends(self) -> Ends:
        """Lowest and highest."""

    @property
    def is_log(self) -> bool:
        """Whether values are spread evenly over the logarithm."""
        return isinstance(self, LogUniform)

    @property
    def is_whole(self) -> bool:
        """Whether whole numbers are drawn."""
        return isinstance(self.ends[0], int)

    def at(self, share: float) -> float:
        """The value at a share of the range."""
        low, high = map(math.log, self.ends) if self.is_log else self.ends
        value = low + share * (high - low)
        return self.rounded(math.exp(value) if self.is_log else value)

    def rounded(self, value: float) -> float:
        """To three digits, or to a whole number, and within the range."""
        low, high = self.ends
        return min(max(round(value) if self.is_whole else float(f"{value:.3g}"), low), high)


class LogUniform(Range):
    """Evenly over the logarithm: what matters is by which factor values differ."""

    log_uniform: Ends

    @property
    def ends(self) -> Ends:
        """See Range."""
        return self.log_uniform


class Uniform(Range):
    """Evenly between the ends."""

    uniform: Ends

    @property
    def ends(self) -> Ends:
        """See Range."""
        return self.uniform


RANGES: dict[str, type[LogUniform | Uniform]] = {"log_uniform": LogUniform, "uniform": Uniform}


def highest(value: Any) -> Any:
    """A value of an axis, of a range its highest."""
    return value.ends[1] if isinstance(value, Range) else value


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
        if isinstance(value, Mapping) and len(value) == 1 and set(value) <= set(RANGES):
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
    ((kind, ends),) = value.items()
    where = f"{section}.{key}.{kind}"
    if settings.model_fields[key].annotation is not float and key not in DRAWN_WHOLE_NUMBERS:
        raise ConfigError(f"{where}: {key} is no continuous number; give a list of values")
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        raise ConfigError(f"{where}: {show_value(ends)} is not accepted; give the lowest and the highest value")
    low, high = (_read_value(section, key, end, settings) for end in ends)
    if not low < high or (kind == "log_uniform" and low <= 0):
        above = "above 0 and " if kind == "log_uniform" else ""
        raise ConfigError(f"{where}: {show_value(ends)} is not accepted; the lowest is {above}below the highest")
    return RANGES[kind].model_validate({kind: (low, high)})


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
