"""Counts what a step would launch on a GPU: the passes at real sizes on meta tensors, which hold no numbers.

Every operation that is dispatched counts as one launch, views and allocations apart; what torch calls as one operation
and runs as several counts as these. Each of our compiled passes is one operation (`lorabench::fused`) and weighs what
`FUSED` says. Bytes are those of an operation's inputs and outputs, each once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import FrozenBase, freeze
from lorabench.models.catalog import get_model
from lorabench.models.entry import ModelEntry
from lorabench.models.random_weights import build, config_of_entry
from lorabench.tokens.packing import PackedBatch, make_batch, stream_rows

NUM_ROWS, CONTEXT = 16, 1024
FUSED = {
    "add_norm": 1,  # a row is read once, and its sums stay in the block that writes it
    "add_norm_backward": 1,
    "activation": 1,
    "activation_backward_": 1,
    "rotate": 2,  # queries and keys
    "cross_entropy_": 2,  # a row of logits does not fit into a block: its sums, then what is written
}
"""Kernels of a compiled pass, where it turns whole heads. `test_generated.py` counts them in inductor's code."""
ATTENTION = {"_varlen_attn": 2, "_varlen_attn_backward": 5}
"""Forward: the kernel and zeros for its random state. Backward: preparation, kernel, conversion, and the sums of keys
and values over the query heads that share them."""
TENSORS_AT_ONCE = 30
"""That one launch over lists of tensors takes, at least. Norms, scaling, the optimizer and its steps are such lists."""
JOINED_AT_ONCE = 128
"""Tensors of one type that one launch lays side by side."""
READ_TWICE = {"cross_entropy_"}
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "baddbmm"}
FREE = {
    *("view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "split", "split_with_sizes"),
    *("unsqueeze", "squeeze", "detach", "alias", "unbind", "as_strided", "_reshape_alias", "unflatten", "diagonal"),
    *("empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "lift_fresh"),
}
"""Views and allocations."""


def kernels_of(name: str, tensors: Sequence[Tensor]) -> int:
    """Kernels of a compiled pass over its tensors: what is not turned of queries and keys is copied by two more."""
    is_partial = name == "rotate" and tensors[0].shape[-1] > 2 * tensors[2].shape[-1]
    return FUSED[name] + 2 * is_partial


class Launches(TorchDispatchMode):
    """Counts operations on meta tensors while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.num_uploads = 0
        self.num_products = 0

    @property
    def total(self) -> int:
        return sum(self.operations.values())

    @property
    def gigabytes(self) -> float:
        """Outside products."""
        return sum(self.bytes.values()) / 1e9

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        inputs = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        outputs = [value for value in tree_flatten(result)[0] if isinstance(value, Tensor)]
        devices = {tensor.device.type for tensor in [*inputs, *outputs]}
        if name in FREE or "meta" not in devices:
            return result
        if inputs and {tensor.device.type for tensor in inputs if tensor.dim()} == {"cpu"}:
            self.num_uploads += 1
            return result
        if name == "_local_scalar_dense":
            raise AssertionError("a step waits for the device")
        weight, reads = 1, 1
        if name == "fused":
            name = args[0]
            weight, reads = kernels_of(name, args[1]), 1 + (name in READ_TWICE)
        if name == "cat":
            weight = math.ceil(len(args[0]) / JOINED_AT_ONCE)
        self.operations[name] += ATTENTION.get(name, weight)
        if name in PRODUCTS:
            self.num_products += 1
            return result
        read = outputs if name in ("index", "index_select", "embedding") else inputs
        self.bytes[name] += sum(_size(tensor) for tensor in read) * reads + sum(map(_size, outputs))
        return result


def _size(tensor: Tensor) -> int:
    return 0 if 0 in tensor.stride() and tensor.dim() else tensor.numel() * tensor.element_size()


def real_size(name: str, rank: int = 16) -> tuple[FrozenBase, Adapter]:
    """A model of the catalogue in bfloat16 on meta tensors, with an adapter on all linear layers."""
    entry = get_model(name)
    assert isinstance(entry, ModelEntry)
    with torch.device("meta"):
        model = build(config_of_entry(entry), torch.bfloat16)
    if hasattr(model.base_model.get_input_embeddings(), "embed_scale"):
        model.base_model.get_input_embeddings().embed_scale = torch.tensor(math.sqrt(entry.hidden_size))
    base = freeze(model, torch.device("meta"), "bf16")
    adapter = attach(base, AdapterSettings(rank=rank), seed=0)
    assert base.execution.kind == "fast", base.execution
    assert {parameter.device.type for parameter in adapter.parameters} == {"meta"}
    return base, adapter


def batch_of(kind: str, num_rows: int = NUM_ROWS, context: int = CONTEXT) -> PackedBatch:
    """Full rows: of one document each, or of documents as long as stories."""
    generator = np.random.default_rng(0)
    documents, total = [], 0
    while total < num_rows * context:
        length = context if kind == "windows" else max(2, int(generator.lognormal(math.log(205), 0.4)))
        documents.append(generator.integers(0, 1000, length).astype(np.int32))
        total += length
    rows = stream_rows(documents, range(len(documents)), prefix=0, context_length=context)
    return make_batch(list(rows)[:num_rows])


def count_step(base: FrozenBase, adapter: Adapter, batch: PackedBatch) -> Launches:
    """A whole training step.

    What clipping and the optimizer launch is added: on meta tensors torch takes one after the other, or refuses.
    """
    parameters = adapter.parameters
    with Launches() as launches:
        loss = base.loss(batch)
        torch.autograd.backward(loss / batch.num_scored)
    assert all(parameter.grad is not None for parameter in parameters)
    for parameter in parameters:
        parameter.grad = None
    launches.operations["clipping and optimizer"] += clipping_and_optimizer(parameters)
    return launches


def clipping_and_optimizer(parameters: Sequence[Tensor]) -> int:
    """What they launch."""
    return 4 * math.ceil(len(parameters) / TENSORS_AT_ONCE) + 6
