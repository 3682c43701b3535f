"""Writes a model folder, or the adapter of one, as a GGUF file that llama.cpp runs as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from lorabench.core.errors import InputError
from lorabench.deploy.gguf.architectures import (
    Floats,
    architecture_of,
    rope_factors,
    written_tensors,
)
from lorabench.deploy.gguf.vocabulary import read_vocabulary, write_vocabulary
from lorabench.models.shape import read_config, weight_files
from lorabench.models.text_part import text_config

TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
"""What can be written here; other types are made of one of these by llama.cpp itself."""
_KEPT_WIDE = ("token_types", "position_embd", "norm")
"""Parts of names whose tensors stay in float32."""


def write_gguf(folder: Path, output: Path, *, type_name: str, name: str) -> None:
    """Write the model in a folder of safetensors to `output`, its matrices in the type `type_name` of `TYPES`.

    Tensors go through a temporary file, one at a time. Raises ModelError where llama.cpp has no such model or
    tokenizer, InputError for an unknown type.
    """
    if type_name not in TYPES:
        raise InputError(f"{type_name[:80]!r} cannot be written here; accepted: {', '.join(TYPES)}")
    config = read_config(folder)
    architecture = architecture_of(config, str(folder))
    wanted, file_type = TYPES[type_name]
    num_rows = num_embeddings(folder)
    vocabulary = read_vocabulary(folder, num_rows)
    writer = gguf.GGUFWriter(output, architecture.name, use_temp_file=True)
    try:
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(name)
        architecture.settings(writer, config)
        writer.add_vocab_size(num_rows)
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        write_vocabulary(writer, vocabulary, folder)
        factors = rope_factors(config)
        if factors is not None:
            writer.add_tensor("rope_freqs.weight", factors)
        for key, tensor in written_tensors(architecture, config, _read_tensors(folder)):
            _add_tensor(writer, key, tensor, wanted)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
        if writer.temp_file is not None:
            writer.temp_file.close()


def require_writable(model: Path, tokenizer: Path) -> None:
    """Raises ModelError where llama.cpp has no such model, or would split text in another way.

    `model` is the base's folder, `tokenizer` one with the tokenizer that goes into the file.
    """
    architecture_of(text_config(read_config(model)), str(model))
    read_vocabulary(tokenizer, num_embeddings(model))


def num_embeddings(folder: Path) -> int:
    """Rows of the embeddings in a folder of safetensors."""
    return next(
        shape[0]
        for key, shape in _tensor_names(folder)
        if key.endswith(("wte.weight", "embed_tokens.weight", "embed_in.weight"))
    )


def type_counts(path: Path) -> dict[str, int]:
    """Tensors of each type that a file really holds: a type falls back to another where its rows do not fit."""
    counts: dict[str, int] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _add_tensor(writer: gguf.GGUFWriter, name: str, tensor: Floats, wanted: gguf.GGMLQuantizationType) -> None:
    """In the wanted type where it is a matrix whose rows fill the type's blocks, else in float32 or float16."""
    kind = wanted
    if tensor.ndim < 2 or any(part in name for part in _KEPT_WIDE):
        kind = gguf.GGMLQuantizationType.F32
    elif tensor.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0]:
        kind = gguf.GGMLQuantizationType.F16
    data = np.ascontiguousarray(tensor, np.float32)
    writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)


def _tensor_names(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from safetensors import safe_open

    for path in weight_files(folder):
        with safe_open(path, framework="numpy") as stored:
            for key in stored.keys():  # noqa: SIM118 - no mapping
                yield key, tuple(stored.get_slice(key).get_shape())


def _read_tensors(folder: Path) -> Iterator[tuple[str, Floats]]:
    """Every tensor in float32, one at a time."""
    from safetensors import safe_open

    for path in weight_files(folder):
        with safe_open(path, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - no mapping
                yield key, stored.get_tensor(key).float().numpy()
