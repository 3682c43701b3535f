"""What checked values of files have in common: they never change; unknown keys are refused with one sentence."""

from __future__ import annotations

import re
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lorabench.core.errors import ConfigError, near_matches
from lorabench.core.plain_yaml import show_key

MAX_REFERENCE = 1000
"""Characters of a name or a path."""


class Frozen(BaseModel):
    """A value that never changes and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


def check_text(value: str) -> str:
    """`value`. Raises ValueError where it holds control characters."""
    if any(ord(character) < 32 for character in value):
        raise ValueError("should hold no control characters")
    return value


def check_reference(value: str) -> str:
    """`value`. Raises ValueError where it can be no name and no path."""
    if not 1 <= len(value) <= MAX_REFERENCE:
        raise ValueError(f"should have 1 to {MAX_REFERENCE} characters")
    return check_text(value)


Reference = Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE), AfterValidator(check_text)]
PositiveInt = Annotated[int, Field(ge=1, le=10**12)]


def refuse_key(section: str, key: Any, settings: type[BaseModel]) -> NoReturn:
    """Raise ConfigError for a key that `settings` does not know, with near matches and what is accepted."""
    accepted = list(settings.model_fields)
    where = f"{section}.{show_key(key)}" if section else show_key(key)
    raise ConfigError(f"{where}: unknown key.{near_matches(str(key), accepted)} Accepted: {', '.join(accepted)}")


def tidy(message: str) -> str:
    """pydantic's message as the end of a sentence of ours, in YAML's words."""
    message = message.removeprefix("Value error, ").replace(" after validation", "")
    message = re.sub(r"\b(valid )?tuple\b", "list", message, flags=re.IGNORECASE)
    message = re.sub(r"valid dictionary( or instance of \w+)?", "mapping", message)
    return (message[0].lower() + message[1:]).replace("input should", "should").replace("\n", " ")
