"""Reads a model's shape from its folder without loading it: config.json and the headers of its safetensors files.

Only headers are read (kilobytes), and neither torch nor Transformers is imported, so plans are instant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorabench.core.errors import ModelError
from lorabench.models.linears import TRANSPOSED, is_embedding, read_stored_linears
from lorabench.models.text_part import text_config, text_tensors

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
NO_LIMIT = 1_048_576
"""The longest context that an experiment may ask for."""
CONTEXT_LENGTHS = {
    **dict.fromkeys(("bloom", "falcon_mamba", "mamba", "mamba2", "recurrent_gemma", "rwkv", "xlstm"), NO_LIMIT),
    "falcon": 2048,
}
"""Of model types whose config.json need not state one: without positions, or Transformers' own default."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a causal language model.

    `linears` maps the path of each linear layer (the output head is not among them) to (inputs, outputs), also where
    its weight is stored transposed. `experts` holds the paths of the weights of experts and their routers.
    """

    linears: dict[str, tuple[int, int]]
    experts: frozenset[str]
    num_parameters: int
    num_layers: int
    hidden_size: int
    vocabulary_size: int
    max_context_length: int
    family: str
    """The configuration's `model_type`: llama, gpt2, gpt_neox, gemma, …"""
    parameters: dict[str, int] | None = None
    """Sizes of the parameters by name; None where no weight file's header was read."""
    config: Mapping[str, Any] | None = field(default=None, repr=False)
    """The text model's config.json."""

    @property
    def transposed(self) -> bool:
        """Whether linear layers store [inputs, outputs]."""
        return self.family in TRANSPOSED


def read_model_shape(folder: Path) -> ModelShape:
    """The shape of the model in `folder`. Raises ModelError for what is missing or not as it should be."""
    return shape_of(read_config(folder), stored_shapes(folder), str(folder))


def shape_of(config: Mapping[str, Any], stored: Mapping[str, tuple[int, ...]], where: str) -> ModelShape:
    """The shape of a model by its config.json and the shapes of its stored tensors: of its text part, if it has others.

    `where` names it in messages. Raises ModelError for what is missing or not as it should be.
    """
    tensors, config = text_tensors(stored, config), text_config(config)
    found = read_stored_linears(tensors, config)
    if not found.linears:
        raise ModelError(f"{where}: its weights hold no layers with linear modules; it is not a language model")
    embeddings = [shape for name, shape in tensors.items() if is_embedding(name.removesuffix(".weight"))]
    if not embeddings and not config.get("vocab_size"):
        raise ModelError(f"{where}: config.json has no vocab_size, and its weights hold no embedding of a known name")
    return ModelShape(
        linears=found.linears,
        experts=found.experts,
        num_parameters=found.num_parameters,
        num_layers=_num_layers(config, where),
        hidden_size=_number(config, where, "hidden_size", "n_embd", "n_embed", "d_model"),
        vocabulary_size=int(config.get("vocab_size") or embeddings[0][0]),
        max_context_length=_max_context_length(config, where),
        family=str(config.get("model_type", "unknown")),
        parameters=found.parameters,
        config=config,
    )


def _num_layers(config: Mapping[str, Any], where: str) -> int:
    """As stated, or as many as have a type."""
    names = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    types = config.get("layers_block_type") or config.get("layer_types")
    if isinstance(types, list) and types and not any(config.get(name) for name in names):
        return len(types)
    return _number(config, where, *names)


def _max_context_length(config: Mapping[str, Any], where: str) -> int:
    """Tokens that the model reads at once; NO_LIMIT for those that know no positions."""
    otherwise = CONTEXT_LENGTHS.get(str(config.get("model_type")))
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    if otherwise is not None and not any(config.get(name) for name in names):
        return otherwise
    return _number(config, where, *names)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json as a mapping. Raises ModelError."""
    path = folder / "config.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{folder}: there is no config.json; give the folder of a Transformers model") from None
    except OSError:
        raise ModelError(f"{path} is not readable JSON") from None
    return parse_config(content, str(path))


def parse_config(content: bytes, where: str) -> dict[str, Any]:
    """The content of a config.json as a mapping; `where` names the file. Raises ModelError."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise ModelError(f"{where} is not readable JSON") from None
    if not isinstance(values, dict):
        raise ModelError(f"{where} should hold one JSON object")
    return values


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files. Raises ModelError where there are none, or only pickled weights."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        pickled = sorted(
            path.name for path in folder.glob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
        )
        if pickled:
            raise ModelError(
                f"{folder}: its weights are pickled ({pickled[0][:80]}), which could run code, and are not read; "
                "save the model again with model.save_pretrained(folder), which writes safetensors"
            )
        raise ModelError(f"{folder}: there is no {WEIGHTS}; save the model with model.save_pretrained(folder)")
    try:
        names = sorted({str(name) for name in json.loads(index.read_bytes())["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(f"{index} is not an index of safetensors files") from None
    for name in names:
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise ModelError(f"{index} names {name[:80]!r}, which is not a safetensors file beside it")
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing, which {INDEX} names")
    return [folder / name for name in names]


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name -> dtype, shape, data_offsets. Raises ModelError."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
                raise ModelError(f"{path} is not a whole safetensors file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        ends = [int(tensor["data_offsets"][1]) for tensor in header.values()]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise ModelError(f"{path} is not a whole safetensors file") from None
    if size != 8 + length + max(ends, default=0):
        raise ModelError(f"{path} is cut short or has something appended; copy or download it again")
    return dict(header)


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The folder's tensors by name, from the headers of its safetensors files. Raises ModelError."""
    try:
        return {
            name: tuple(int(size) for size in tensor["shape"])
            for path in weight_files(folder)
            for name, tensor in read_header(path).items()
        }
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"{folder}: a safetensors header has no shapes") from None


def _number(config: Mapping[str, Any], where: str, *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and value > 0:
            return value
    raise ModelError(f"{where}/config.json: {names[0]} is missing or not a positive number")
