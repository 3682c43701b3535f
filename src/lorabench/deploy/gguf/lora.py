"""Writes a LoRA adapter as a GGUF file that llama.cpp puts on the base's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from lorabench.core.errors import InputError
from lorabench.deploy.gguf.architectures import architecture_of, num_layers_of, tensor_names
from lorabench.models.base import FrozenBase
from lorabench.models.shape import read_header
from lorabench.models.text_part import text_config

_FACTOR = re.compile(r"\.lora_[AB]\.weight$")


def require_plain_lora(adapter: Path, configuration: dict[str, Any], weights: str) -> None:
    """Raises InputError for an adapter that is more than two factors for each matrix, which llama.cpp does not know."""
    kind = configuration.get("peft_type")
    if kind != "LORA":
        raise InputError(f"{adapter}: llama.cpp reads LoRA alone, not an adapter of the kind {kind}; accepted: gguf")
    for name in read_header(adapter / weights):
        if name != "__metadata__" and not _FACTOR.search(name):
            raise InputError(f"{adapter}: llama.cpp has no place for the adapter's {name}; accepted: gguf")


def write_lora(base: FrozenBase, output: Path, name: str) -> None:
    """Write the LoRA adapter that is attached to `base`, in float32.

    Each module's scaling is in its second factor, so that modules may differ in it. Raises ModelError where llama.cpp
    has no such model, InputError for a matrix that it does not have.
    """
    inner = base.model.base_model.model
    config = text_config(inner.config.to_dict())
    architecture = architecture_of(config, name)
    name_of = tensor_names(architecture, num_layers_of(config))
    writer = gguf.GGUFWriter(output, architecture.name)
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)  # of nought llama.cpp takes the factors as they are
        writer.add_name(name)
        for path, module in inner.named_modules():
            if not hasattr(module, "lora_A"):
                continue
            (adapter,) = module.active_adapters
            target = name_of(f"{path}.weight") or name_of(f"transformer.{path}.weight")
            if target is None:
                raise InputError(f"{name}: llama.cpp has no place for an adapter on {path}; accepted: gguf")
            first = module.lora_A[adapter].weight.detach().float().numpy()
            second = (module.lora_B[adapter].weight.detach().float() * module.scaling[adapter]).numpy()
            rows = architecture.layout(f"{path}.bias", second, config)  # they lie as the numbers of a bias do
            writer.add_tensor(f"{target}.lora_a", np.ascontiguousarray(first))
            writer.add_tensor(f"{target}.lora_b", np.ascontiguousarray(rows))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
