"""What `deploy:` asks for: the forms in which the recommended runs are measured once all runs are done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo

from lorabench.core.errors import ConfigError, InputError
from lorabench.core.formatting import parse_size
from lorabench.core.settings import Frozen, Reference, refuse_key


def _read_size(value: Any, info: ValidationInfo) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("should be a size, such as 800MB or 2GB")
    try:
        return parse_size(str(value), f"deploy.{info.field_name}")
    except InputError as error:
        raise ConfigError(str(error)) from None


Size = Annotated[float | None, BeforeValidator(_read_size)]
"""Bytes; in a file also `2GB`."""


class DeploySettings(Frozen):
    """The `deploy` section. It measures finished runs, so it is no part of a run's identity."""

    forms: tuple[Reference, ...] = Field(default=(), max_length=100)
    """Empty: every form that can be made here."""
    rounds: Annotated[int, Field(ge=1, le=1000)] = 3
    """How often each form is timed."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Null: the machine's cores."""
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,3})?)$")] = "cpu"
    """Where forms are used: `cpu`, or an NVIDIA GPU."""
    max_memory: Size = None
    """At its peak: of the process, or on the card."""
    max_disk: Size = None
    min_decode: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    """Tokens a second, one sequence."""


def _read(value: Any) -> Any:
    """`true` asks for what is asked for by default, a list or a name for these forms."""
    if value is None or value is False:
        return None
    if value is True:
        return {}
    if isinstance(value, str):
        return {"forms": [value]}
    if isinstance(value, list | tuple):
        return {"forms": value}
    if isinstance(value, Mapping):
        for key in value:
            if key not in DeploySettings.model_fields:
                refuse_key("deploy", key, DeploySettings)
        if isinstance(value.get("forms"), str):
            return {**value, "forms": [value["forms"]]}
    elif not isinstance(value, DeploySettings):
        raise ValueError("should be true, a list of forms, or a mapping with forms, rounds, max_memory and the like")
    return value


Deploy = Annotated[DeploySettings | None, BeforeValidator(_read)]
"""The value of the key `deploy` of an experiment."""
