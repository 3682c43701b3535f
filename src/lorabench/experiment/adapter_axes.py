"""The axes of an experiment's adapters: sections whose keys and values have to fit every method that they list."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from lorabench.core.errors import ConfigError, near_matches
from lorabench.core.plain_yaml import show_key, show_value
from lorabench.core.settings import refuse_key, tidy
from lorabench.experiment.axes import read_axes
from lorabench.methods.method import Method
from lorabench.methods.registry import METHODS
from lorabench.methods.settings import DEFAULT_METHOD, AdapterSettings


def read_adapter_axes(section: str, raw: Any) -> dict[str, list[Any]]:
    """Check a section by each method that it lists. Raises ConfigError, which calls it `section`."""
    if not isinstance(raw, Mapping):
        return read_axes(section, raw, AdapterSettings)
    given = raw.get("method", DEFAULT_METHOD)
    axes: dict[str, list[Any]] = {}
    for name in (given or [DEFAULT_METHOD]) if isinstance(given, list | tuple) else [given]:
        settings = _find_method(section, name).settings
        for key in raw:
            if key not in settings.model_fields:
                _refuse_method_key(section, key, name)
        axes = read_axes(section, raw, settings)
    return axes


def make_adapter(point: Mapping[str, Any]) -> AdapterSettings:
    """One point of the axes, whose values may have to fit one another. Raises ConfigError."""
    try:
        return METHODS.get(point.get("method", DEFAULT_METHOD)).settings(**point)
    except ValidationError as error:
        values = ", ".join(f"{key} {show_value(value)}" for key, value in point.items())
        raise ConfigError(f"adapter: {values} is not accepted; {tidy(error.errors()[0]['msg'])}") from None


def _find_method(section: str, name: Any) -> Method:
    if isinstance(name, str):
        with suppress(ConfigError):
            return METHODS.get(name)
    *others, last = map(repr, METHODS.all())
    raise ConfigError(
        f"{section}.method: {show_value(name)} is not accepted; should be {', '.join(others)} or {last}."
        f"{near_matches(str(name), METHODS.all())}"
    )


def _refuse_method_key(section: str, key: Any, name: str) -> None:
    owners = [other for other, method in METHODS.all().items() if key in method.settings.model_fields]
    if not owners:
        refuse_key(section, key, METHODS.get(name).settings)
    raise ConfigError(
        f"{section}.{show_key(key)}: unknown key for the method {name}; it is a setting of {', '.join(owners)}. "
        f"Accepted with {name}: {', '.join(METHODS.get(name).settings.model_fields)}"
    )
