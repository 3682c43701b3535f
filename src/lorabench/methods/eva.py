"""EVA (Paischer et al. 2024): LoRA whose first factor starts from the directions in which a layer's inputs vary most.

A's rows are the first principal directions, of length one, of the layer's inputs on the beginning of the training text;
B is zero. Every layer keeps its rank, as with `rho` 1 in PEFT. What is trained and saved is plain LoRA.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lorabench.core.errors import ConfigError, ModelError
from lorabench.methods.lora import Lora
from lorabench.methods.lora_settings import LoraSettings, layer_ranks
from lorabench.methods.peft_adapter import PeftAdapter
from lorabench.tokens.packing import IGNORED, Row, Segment, make_batch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lorabench.models.base import FrozenBase

MAX_BYTES = 1 << 29
"""Of inputs held at once, but for a single layer whose inputs are more: further layers wait for another pass."""
NUM_ITERATIONS = 10
"""Of the subspace iteration."""


class EvaSettings(LoraSettings):
    """EVA's own setting."""

    eva_rows: Annotated[int, Field(ge=1, le=4096)] = 8
    """Rows of the training text, of a context length each, whose inputs are looked at."""


class EvaAdapter(PeftAdapter):
    """LoRA with another start."""

    def begin(self, rows: Iterator[Row]) -> None:
        """Give each A its start.

        Raises ConfigError where the rows hold too few tokens, ModelError where the model does not call a layer.
        """
        assert isinstance(self.settings, EvaSettings)
        chosen = list(itertools.islice(rows, self.settings.eva_rows))
        segments = [segment for row in chosen for segment in row]
        num_tokens = sum(segment.num_scored for segment in segments)
        ranks = layer_ranks(self.settings, self.module_names)
        if num_tokens <= max(ranks.values()):
            raise ConfigError(
                f"adapter.eva_rows: {len(chosen)} rows hold {num_tokens} tokens that are trained on, too few for rank "
                f"{max(ranks.values())}; give more rows, more text, or a lower rank"
            )
        layers = {path: self.base.model.get_submodule(path) for path in self.module_names}
        for group in _groups(layers, num_tokens):
            found: dict[tuple[int, ...], Tensor] = {}
            for path, parts in inputs_of(self.base, group, segments).items():
                same = tuple(map(id, parts))
                if same not in found:
                    found[same] = principal_directions(parts, max(ranks.values()))
                group[path].lora_A["default"].weight.data.copy_(found[same][: ranks[path]])


class Eva(Lora):
    """LoRA that starts from what the layers are given."""

    settings = EvaSettings
    adapter = EvaAdapter
    shares_passes = False


def _groups(layers: Mapping[str, Any], num_tokens: int) -> Iterator[dict[str, Any]]:
    """Layers whose inputs are held at once."""
    group: dict[str, Any] = {}
    size = 0
    for path, layer in layers.items():
        own = 4 * num_tokens * layer.in_features
        if group and size + own > MAX_BYTES:
            yield group
            group, size = {}, 0
        group[path] = layer
        size += own
    yield group


def inputs_of(
    base: FrozenBase, layers: Mapping[str, nn.Module], segments: Sequence[Segment]
) -> dict[str, list[Tensor]]:
    """By path, what goes into each layer where a target is trained on: a tensor [N, inputs] for each segment.

    Layers that are given one tensor one after the other, as queries, keys and values are, have the same tensors here.
    Raises ModelError where the model does not call a layer.
    """
    import torch

    inputs: dict[str, list[Tensor]] = {path: [] for path in layers}
    scored = torch.empty(0)
    last: tuple[Any, Tensor] | None = None

    def keep(path: str, given: Tensor) -> None:
        nonlocal last
        if last is None or last[0] is not given:
            last = given, given.flatten(0, -2)[scored]
        inputs[path].append(last[1])

    handles = [
        layer.register_forward_pre_hook(lambda _, given, path=path: keep(path, given[0]))
        for path, layer in layers.items()
    ]
    path_before = base.decoder, base.execution
    base.use_reference_path("its modules are called")
    try:
        for segment in segments:
            batch = make_batch([[segment]])
            scored = torch.from_numpy(batch.targets != IGNORED).to(base.device)
            base.token_nll(batch)
    finally:
        base.decoder, base.execution = path_before
        for handle in handles:
            handle.remove()
    for path, parts in inputs.items():
        if not parts:
            raise ModelError(f"adapter.method: eva: the model does not call {path}; leave it out of target_modules")
    return inputs


def principal_directions(parts: Sequence[Tensor], rank: int) -> Tensor:
    """Orthonormal directions of largest variance of rows [N, inputs] given in parts: float64 [rank, inputs].

    The largest variance comes first, and each direction's largest entry is positive. By randomised subspace iteration
    from a fixed start (Halko et al. 2011).
    """
    import torch

    rows = torch.cat(list(parts)).double()
    with torch.random.fork_rng(devices=[rows.device] if rows.device.type == "cuda" else []):
        torch.manual_seed(0)
        size = min(2 * rank + 8, *rows.shape)
        directions = torch.pca_lowrank(rows, q=size, niter=NUM_ITERATIONS)[2].t()[:rank]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return directions * largest.sign()


METHOD = Eva()
