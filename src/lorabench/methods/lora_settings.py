"""What LoRA and its kin can be set to: ranks and alphas of single layers, by patterns on their names as in PEFT."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from lorabench.core.errors import ConfigError
from lorabench.methods.quick_patterns import require_quick
from lorabench.methods.settings import AdapterSettings, Modules

Value = TypeVar("Value", int, float)


def _check_patterns(value: Mapping[str, Value]) -> Mapping[str, Value]:
    for pattern in value:
        try:
            _whole_path(pattern)
        except re.error as error:
            raise ValueError(f"should have regular expressions as keys; {pattern[:80]!r} is none ({error})") from None
        if not pattern or len(pattern) > 200 or not pattern.isprintable():
            raise ValueError("should have names of modules, ends of paths or regular expressions as keys")
    return value


def _whole_path(pattern: str) -> re.Pattern[str]:
    """As PEFT puts it together, in which an expression of its own such as `(?i)` may be none. Raises re.error."""
    return re.compile(rf"(.*\.)?({pattern})$")


class LoraSettings(AdapterSettings):
    """What LoRA and its kin have beside the settings of every method.

    A pattern is the end of a module's path, such as `down_proj` or `0.mlp.down_proj`, or a regular expression for it.
    """

    rank_pattern: Annotated[dict[str, Annotated[int, Field(ge=1, le=4096)]], AfterValidator(_check_patterns)] = Field(
        default_factory=dict
    )
    """Modules whose rank is another than `rank`."""
    alpha_pattern: Annotated[dict[str, Annotated[float, Field(gt=0.0, le=1e6)]], AfterValidator(_check_patterns)] = (
        Field(default_factory=dict)
    )
    """Modules whose alpha is another than `alpha`, which stays a multiple of `rank` elsewhere."""
    modules_to_save: Modules | None = None
    """Modules of the base that are trained whole, by names or ends of their paths, separated by commas."""


def lora_settings(settings: AdapterSettings) -> LoraSettings:
    """As they are; with no patterns and no whole modules where they are those that every method has."""
    if isinstance(settings, LoraSettings):
        return settings
    return LoraSettings(**{name: getattr(settings, name) for name in AdapterSettings.model_fields})


def layer_ranks(settings: AdapterSettings, paths: Sequence[str]) -> dict[str, int]:
    """The rank of each adapted module, by its full path. Raises ConfigError as `matched` does."""
    pattern = lora_settings(settings).rank_pattern
    return dict.fromkeys(paths, settings.rank) | matched("rank_pattern", pattern, paths)


def matched(setting: str, patterns: Mapping[str, Value], paths: Sequence[str]) -> dict[str, Value]:
    """What the patterns give to the modules that they match, by full path.

    Raises ConfigError for a pattern that matches none of them, or takes for ever, and for a module that two match: PEFT
    would take the first, and a mapping has no order that a run's identity could hold.
    """
    require_quick(f"adapter.{setting}", patterns, paths)
    found: dict[str, tuple[str, Value]] = {}
    for pattern, value in patterns.items():
        whole_path = _whole_path(pattern)
        matching = [path for path in paths if whole_path.match(path)]
        if not matching:
            names = sorted({path.rsplit(".", 1)[-1] for path in paths})
            raise ConfigError(
                f"adapter.{setting}: {pattern!r} matches no adapted module. Accepted: names among {', '.join(names)}, "
                "ends of their paths, or regular expressions for them"
            )
        for path in matching:
            if path in found:
                raise ConfigError(
                    f"adapter.{setting}: {found[path][0]!r} and {pattern!r} both match {path}; let each module have one"
                )
            found[path] = pattern, value
    return {path: value for path, (_, value) in found.items()}
