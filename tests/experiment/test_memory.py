"""The planned memory of training, against what the backward pass is left, counted byte by byte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lorabench.experiment.memory import estimate_memory, kept_by_layers
from lorabench.experiment.workload import Workload
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import DTYPES, PRECISIONS, FrozenBase, freeze
from lorabench.models.loaded import LoadedLinears
from lorabench.models.shape import ModelShape
from lorabench.tokens.packing import Segment, make_batch

Case = tuple[FrozenBase, ModelShape, Workload]


def case(kind: str, precision: str, **adapter: Any) -> Case:
    """A tiny model with an adapter, and its workload of two rows."""
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000}
    sizes |= {
        "llama": {"intermediate_size": 384, "num_key_value_heads": 2},
        "gpt_neox": {"intermediate_size": 512},
        "opt": {"ffn_dim": 512, "word_embed_proj_dim": 128},
    }.get(kind, {})
    config = AutoConfig.for_model(kind, bos_token_id=0, eos_token_id=0, pad_token_id=0, **sizes)
    model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[PRECISIONS[precision]])
    base = freeze(model, torch.device("cpu"), PRECISIONS[precision])
    linears, settings = LoadedLinears(base.model), AdapterSettings(**adapter)
    shape = ModelShape(linears.linears, frozenset(), linears.num_parameters, 2, 128, 1000, 512, kind)
    attach(base, settings, seed=0)
    workload = Workload(
        context_length=128, precision=precision, evaluation_tokens=0, train_tokens=256, adapter=settings,
        target_modules=tuple(linears.linears), rows_at_once=2,
    )  # fmt: skip
    return base, shape, workload


def kept_bytes(base: FrozenBase) -> int:
    """What autograd keeps of a pass over two rows, beside the model's own weights."""
    batch = make_batch([[Segment(0, np.arange(129, dtype=np.int32) + place) for place in range(2)]])
    held = {tensor.untyped_storage().data_ptr() for tensor in (*base.model.parameters(), *base.model.buffers())}
    kept: dict[int, tuple[int, object]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = base.loss(batch, [0])
    assert loss.requires_grad
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize(
    "adapter", [{"rank": 4}, {"rank": 64}, {"rank": 4, "dropout": 0.1}, {"method": "dora", "rank": 4}]
)
def test_memory_of_the_fast_path_is_counted_tensor_by_tensor(
    kind: str, adapter: dict[str, Any], precision: str
) -> None:
    """Beside what the layers keep there are copies of the factors, and what the last norm and the head keep."""
    base, shape, workload = case(kind, precision, **adapter)
    assert base.execution.kind == "fast"
    width = 4 if precision == "fp32" else 2
    factors = width * sum(parameter.numel() for parameter in base.model.parameters() if parameter.requires_grad)
    head = 256 * 128 * (4 + 2 * width)
    counted = kept_bytes(base)
    assert kept_by_layers(shape, workload) <= counted <= 1.1 * (kept_by_layers(shape, workload) + factors + head)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("kind", "method"), [("llama", "dora"), ("gpt2", "dora"), ("llama", "full"), ("opt", "lora")])
def test_memory_of_the_reference_path_is_what_the_backward_pass_needs(kind: str, method: str, precision: str) -> None:
    """What is kept for it; gradients on the way and holes in the heap come on top."""
    base, shape, workload = case(kind, precision, method=method, rank=8, dropout=0.1)
    assert base.execution.kind == "reference"
    more = replace(workload, rows_at_once=4)
    estimated = estimate_memory(shape, more) - estimate_memory(shape, workload)
    counted = kept_bytes(base)
    assert 0.9 < estimated / counted < 3.0, (estimated, counted)
