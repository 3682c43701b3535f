"""The settings that every method has. A method with settings of its own derives a class from these."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from lorabench.core.formatting import setting
from lorabench.core.settings import Frozen

DEFAULT_METHOD = "lora"
_ALPHA = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*r")


def _check_alpha(value: str | float) -> str | float:
    if isinstance(value, str):
        multiple = _ALPHA.fullmatch(value)
        number = float(multiple[1]) if multiple else 0.0
    else:
        number = float(value)
    if not 0 < number <= 1e6:
        raise ValueError("should be a positive number or a multiple of the rank such as 2r")
    return value.replace(" ", "") if isinstance(value, str) else number


def _check_modules(value: str) -> str:
    names = [name.strip() for name in value.split(",")]
    if not all(re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name) for name in names):
        raise ValueError("should be all-linear, attention, mlp, or module names separated by commas")
    return ",".join(names)


Alpha = Annotated[str | float, AfterValidator(_check_alpha)]
Modules = Annotated[str, Field(max_length=2000), AfterValidator(_check_modules)]


class AdapterSettings(Frozen):
    """How the base is adapted: one point of the experiment's `adapter` section."""

    method: str = DEFAULT_METHOD
    """The name of one of `registry.METHODS`; some methods leave some of the settings below unused."""
    rank: Annotated[int, Field(ge=1, le=4096)] = 16
    alpha: Alpha = "2r"
    """A number, or a multiple of the rank such as `2r`."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    target_modules: Modules = "all-linear"
    """`all-linear`, `attention`, `mlp`, or module names or ends of their paths, separated by commas."""

    @property
    def alpha_value(self) -> float:
        """Alpha as a number."""
        if isinstance(self.alpha, str):
            return float(self.alpha[:-1]) * self.rank
        return self.alpha

    @property
    def method_settings(self) -> str | None:
        """The settings of this method and its kin, such as `max_norm 0.5`, for tables; None where there are none.

        Those that may be left empty, and are, are not among them.
        """
        own = [name for name in type(self).model_fields if name not in AdapterSettings.model_fields]
        given = {name: getattr(self, name) for name in own if getattr(self, name) not in ({}, None)}
        return ", ".join(f"{name} {setting(value)}" for name, value in given.items()) or None
