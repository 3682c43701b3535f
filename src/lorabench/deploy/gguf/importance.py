"""An importance matrix for llama.cpp's quantiser: how large the inputs of each matrix's columns are on a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lorabench.deploy.gguf.architectures import architecture_of, num_layers_of, tensor_names
from lorabench.models.shape import read_config

NUM_TOKENS = 8_192
"""Of training text that are read."""


def measure_importance(folder: Path, rows: Sequence[Sequence[int]]) -> dict[str, npt.NDArray[np.float32]]:
    """Mean squares of the inputs of every linear layer of a model folder, over token ids `rows`, by llama.cpp's names.

    As in llama.cpp's own tool, the output head is left out, and every token weighs the same.
    """
    import torch

    from lorabench.models.base import load_base
    from lorabench.models.loaded import LoadedLinears

    config = read_config(folder)
    name_of = tensor_names(architecture_of(config, str(folder)), num_layers_of(config))
    model = load_base(folder, precision="fp32", device="cpu").model
    squares: dict[str, Any] = {}

    def adding(path: str) -> Callable[[Any, tuple[Any, ...]], None]:
        def add(module: Any, inputs: tuple[Any, ...]) -> None:
            squares[path] += inputs[0].flatten(0, -2).square().sum(0, dtype=torch.float64)

        return add

    modules = dict(model.named_modules())
    for path, (width, _) in LoadedLinears(model).linears.items():
        squares[path] = torch.zeros(width, dtype=torch.float64)
        modules[path].register_forward_pre_hook(adding(path))
    with torch.inference_mode():
        for ids in rows:
            model.base_model(input_ids=torch.tensor([list(ids)]), use_cache=False)
    num_tokens = sum(map(len, rows))
    found = {}
    for path, sums in squares.items():
        name = name_of(f"{path}.weight") or name_of(f"transformer.{path}.weight")
        if name is not None:
            found[name] = (sums / num_tokens).numpy().astype(np.float32)
    return found
