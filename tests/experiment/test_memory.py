"""The planned memory of training without the fast path, against what the backward pass is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lorabench.core.device import choose_device
from lorabench.experiment.estimates import Workload, estimate_run
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import freeze
from lorabench.models.loaded import LoadedLinears
from lorabench.models.shape import ModelShape
from lorabench.tokens.packing import Segment, make_batch


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("kind", "method"), [("llama", "dora"), ("gpt2", "dora"), ("llama", "full"), ("opt", "lora")])
def test_memory_of_the_reference_path_is_what_the_backward_pass_needs(kind: str, method: str, precision: str) -> None:
    """What is kept for it is counted byte by byte; the gradients on the way come on top, about a fifth."""
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000}
    sizes |= {"llama": {"intermediate_size": 384}, "opt": {"ffn_dim": 512, "word_embed_proj_dim": 128}}.get(kind, {})
    config = AutoConfig.for_model(kind, bos_token_id=0, eos_token_id=0, pad_token_id=0, **sizes)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    base = freeze(AutoModelForCausalLM.from_config(config, dtype=dtype), torch.device("cpu"), precision)  # type: ignore[arg-type]
    linears, settings = LoadedLinears(base.model), AdapterSettings(method=method, rank=8, dropout=0.1)
    shape = ModelShape(linears.linears, frozenset(), linears.num_parameters, 2, 128, 1000, 512, kind)
    adapter = attach(base, settings, seed=0)
    batch = make_batch([[Segment(0, np.arange(129, dtype=np.int32) + place) for place in range(2)]])
    held = {tensor.untyped_storage().data_ptr() for tensor in (*base.model.parameters(), *base.model.buffers())}
    kept: dict[int, tuple[int, object]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = base.loss(batch)
    device = choose_device("cpu")
    planned = Workload(
        context_length=128, precision=precision, evaluation_tokens=0, train_tokens=256, adapter=settings,
        target_modules=tuple(linears.linears), rows_at_once=2,
    )  # fmt: skip
    more = replace(planned, rows_at_once=4)
    estimated = estimate_run(shape, more, device).memory_bytes - estimate_run(shape, planned, device).memory_bytes
    in_all = sum(size for size, _ in kept.values())
    assert loss.requires_grad
    assert adapter.num_trainable
    assert 0.9 < estimated / in_all < 3.0, (estimated, in_all)
