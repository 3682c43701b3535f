"""Which modules an adapter goes on: read from names and shapes, no weights needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from lorabench.core.errors import ConfigError, ModelError, near_matches
from lorabench.methods.settings import AdapterSettings
from lorabench.models.linears import HasLinears, is_attention

Known = TypeVar("Known")


def resolve_targets(shape: HasLinears, names: str) -> list[str]:
    """Full paths of the modules that the setting `target_modules` means, in the model's order.

    Raises ConfigError where a name matches nothing, or experts or their router.
    """
    chosen: set[str] = set()
    for name in names.split(","):
        matching = _matching(shape, name)
        if not matching:
            raise ConfigError(_no_match(shape, name))
        if not matching.isdisjoint(shape.experts):
            raise ConfigError(_experts_match(shape, name, matching))
        chosen |= matching
    return [path for path in shape.linears if path in chosen]


def require_rank_fits(shape: HasLinears, rank: int, ranks: Mapping[str, int]) -> None:
    """Raise ConfigError where a rank is larger than the layer of that path. A pattern gave those other than `rank`."""
    tightest = min(ranks, key=lambda path: min(shape.linears[path]) - ranks[path])
    limit = min(shape.linears[tightest])
    if ranks[tightest] > limit:
        key = "rank" if ranks[tightest] == rank else "rank_pattern"
        raise ConfigError(
            f"adapter.{key}: {ranks[tightest]} is larger than the layer {tightest.rsplit('.', 1)[-1]} "
            f"({shape.linears[tightest][0]} to {shape.linears[tightest][1]}); at most {limit}"
        )


def require_files(known: Known | None, settings: AdapterSettings) -> Known:
    """What is known of a model's files. Raises ConfigError where they are not here."""
    if known is None:
        raise ConfigError(
            f"adapter.method: {settings.method} cannot be planned before the model's files are here; fetch them first "
            "with `lorabench models path NAME`"
        )
    return known


def require_untransposed(shape: HasLinears, settings: AdapterSettings) -> None:
    """Raise ConfigError for a model whose linear layers store [inputs, outputs]."""
    if shape.transposed:
        raise ConfigError(
            f"adapter.method: PEFT has no {settings.method} for layers that store inputs by outputs, as GPT-2's; take "
            "lora, dora, ia3 or vera, or another model"
        )


def require_equal(planned: Iterable[str], planned_trainable: int, attached: Iterable[str], trainable: int) -> None:
    """Raise ModelError unless the adapter is on exactly the planned modules, with the planned number of parameters."""
    planned, attached = set(planned), set(attached)
    different = sorted(planned ^ attached)
    if different:
        how = (
            "was planned but carries no adapter"
            if different[0] in planned
            else "carries an adapter but was not planned"
        )
        more = f" and {len(different) - 1} more" * (len(different) > 1)
        raise ModelError(
            f"adapter.target_modules: the loaded model differs from what was planned: {different[0]} {how}{more}; "
            "name modules that both have"
        )
    if planned_trainable != trainable:
        raise ModelError(
            f"adapter: {planned_trainable:,} trainable parameters were planned and {trainable:,} attached; the model's "
            "weight files do not describe the model that was loaded"
        )


def _matching(shape: HasLinears, name: str) -> set[str]:
    """Paths that a keyword, a module's name or the end of its path means, those of experts included."""
    paths = {*shape.linears, *shape.experts}
    if name == "all-linear":
        return paths
    if name in ("attention", "mlp"):
        return {path for path in paths if is_attention(path) == (name == "attention")}
    return {path for path in paths if path == name or path.endswith(f".{name}")}


def _no_match(shape: HasLinears, name: str) -> str:
    if name in ("attention", "mlp"):
        return f"adapter.target_modules: the model has no linear layers of {name}. {_accepted(shape)}"
    known = sorted({path.rsplit(".", 1)[-1] for path in shape.linears})
    return f"adapter.target_modules: {name!r} matches no linear layer.{near_matches(name, known)} {_accepted(shape)}"


def _experts_match(shape: HasLinears, name: str, matching: set[str]) -> str:
    example = min(matching.intersection(shape.experts))
    return (
        f"adapter.target_modules: {name!r} takes in experts or their router ({example}), which the loaded model does "
        f"not hold as linear layers and no adapter here goes on. {_accepted(shape)}"
    )


def _accepted(shape: HasLinears) -> str:
    """What can be named on this model."""
    keywords = []
    for keyword in ("all-linear", "attention", "mlp"):
        matching = _matching(shape, keyword)
        if matching and matching.isdisjoint(shape.experts):
            keywords.append(keyword)
    taken = {name for path in shape.experts for name in _ends(path)}
    free = (next((name for name in _ends(path) if name not in taken), None) for path in shape.linears)
    names = sorted({name for name in free if name is not None})
    return f"Accepted: {', '.join(keywords)}{', or ' if keywords else ''}names among {', '.join(names)}"


def _ends(path: str) -> tuple[str, str]:
    """The last part of a path, and its last two."""
    parts = path.split(".")
    return parts[-1], ".".join(parts[-2:])
