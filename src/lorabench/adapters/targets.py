"""Which modules an adapter goes on, and how many parameters that makes: arithmetic on shapes, no weights needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lorabench.config import AdapterSettings
from lorabench.errors import ConfigError, near_matches


class HasLinears(Protocol):
    """A model's linear layers: dotted path -> (inputs, outputs), and which of their names belong where."""

    @property
    def linears(self) -> Mapping[str, tuple[int, int]]: ...
    @property
    def attention_modules(self) -> Sequence[str]: ...
    @property
    def mlp_modules(self) -> Sequence[str]: ...
    @property
    def num_parameters(self) -> int: ...


def resolve_targets(shape: HasLinears, settings: AdapterSettings) -> list[str]:
    """Paths of the adapted modules, in the model's order. Raises ConfigError where nothing fits."""
    if settings.method == "full":
        return []
    wanted = settings.target_modules
    if wanted == "all-linear":
        chosen = list(shape.linears)
    else:
        groups = {"attention": shape.attention_modules, "mlp": shape.mlp_modules}
        names = list(groups.get(wanted, wanted.split(",")))
        chosen = []
        for name in names:
            matching = [path for path in shape.linears if path == name or path.endswith(f".{name}")]
            if not matching:
                known = sorted({path.rsplit(".", 1)[-1] for path in shape.linears})
                raise ConfigError(
                    f"adapter.target_modules: {name!r} matches no linear layer.{near_matches(name, known)} "
                    f"Accepted: all-linear, attention, mlp, or names among {', '.join(known)}"
                )
            chosen += matching
        chosen = [path for path in shape.linears if path in set(chosen)]
    smallest = min(chosen, key=lambda path: min(shape.linears[path]))
    limit = min(shape.linears[smallest])
    if settings.rank > limit:
        raise ConfigError(
            f"adapter.rank: {settings.rank} is larger than the layer {smallest.rsplit('.', 1)[-1]} "
            f"({shape.linears[smallest][0]} to {shape.linears[smallest][1]}); at most {limit}"
        )
    return chosen


def count_trainable(shape: HasLinears, settings: AdapterSettings, targets: Sequence[str]) -> int:
    """Trainable parameters: rank x (inputs + outputs) for each module, DoRA's magnitudes beside them."""
    if settings.method == "full":
        return shape.num_parameters
    magnitudes = 1 if settings.method == "dora" else 0
    return sum(
        settings.rank * (shape.linears[path][0] + shape.linears[path][1]) + magnitudes * shape.linears[path][1]
        for path in targets
    )
