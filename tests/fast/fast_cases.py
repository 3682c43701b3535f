"""What the tests of the fast path share: tiny bases, packed batches, and training step by step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorabench.fast.choice import kernels_for
from lorabench.fast.cpu.native import NativeKernels
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.registry import METHODS
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import FrozenBase, Precision, freeze, load_base
from lorabench.tokens.packing import IGNORED, PackedBatch, Segment, make_batch

FAMILIES = ("gpt2", "pythia", "gemma", "smollm2")
REFERENCE = "the test asks for it"


def multiplies_itself() -> bool:
    """Whether bfloat16 products are our own: where the processor has units for them."""
    kernels = kernels_for("cpu", torch.bfloat16)
    return isinstance(kernels, NativeKernels) and kernels.has_products


def tiny_base(folder: Path, precision: Precision = "fp32", *, spread: float = 3.0) -> FrozenBase:
    """A tiny model, its weights scaled up so that attention and activations are far from linear."""
    base = load_base(folder, precision=precision, device="cpu")
    generator = torch.Generator().manual_seed(5)
    for name, parameter in base.model.named_parameters():
        if parameter.dim() > 1 and "embed" not in name and "wte" not in name:
            parameter.data.mul_(spread)
        elif parameter.dim() == 1:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    base.choose_path()
    return base


def random_base(model_class: Any, config: Any, seed: int = 0) -> FrozenBase:
    """A model of another configuration than the tiny repositories', with seeded random weights."""
    torch.manual_seed(seed)
    return freeze(model_class(config), torch.device("cpu"), "fp32")


def packed(lengths: Sequence[Sequence[int]], vocabulary: int, seed: int = 0, num_unscored: int = 0) -> PackedBatch:
    """Rows of documents of the given lengths in random tokens; each segment's first targets may be context only."""
    generator = np.random.default_rng(seed)
    rows = [
        [
            Segment(0, generator.integers(0, vocabulary, length + 1).astype(np.int32), min(num_unscored, length - 1))
            for length in row
        ]
        for row in lengths
    ]
    return make_batch(rows)


def batches(base: FrozenBase, count: int, *, rows: Sequence[Sequence[int]] = ((20, 1, 11), (32,))) -> list[PackedBatch]:
    """Packed batches that differ from one another."""
    return [packed(rows, base.model.config.vocab_size, seed) for seed in range(count)]


def losses_and_gradients(
    base: FrozenBase, adapter: Adapter, work: Sequence[PackedBatch], learning_rate: float = 3e-3
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Train on one batch after the other; yields each step's loss and the gradients that it led to."""
    parameters = dict(adapter.named_parameters())
    optimizer = torch.optim.SGD(list(parameters.values()), lr=learning_rate, momentum=0.9)
    for step, batch in enumerate(work):
        torch.manual_seed(step)
        loss = base.loss(batch)
        torch.autograd.backward(loss / batch.num_scored)
        gradients = {
            name: parameter.grad.clone() for name, parameter in parameters.items() if parameter.grad is not None
        }
        assert gradients.keys() == parameters.keys()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield float(loss.detach()) / batch.num_scored, gradients


def settings(**changes: Any) -> AdapterSettings:
    """A small adapter on all linear layers."""
    kind = METHODS.get(changes.get("method", "lora")).settings
    return kind(**{"rank": 4, "alpha": 8.0, **changes})


def attached_pair(make: Any, adapter: AdapterSettings) -> tuple[tuple[FrozenBase, Adapter], tuple[FrozenBase, Adapter]]:
    """The same base and adapter twice: on the fast path, and as PEFT and Transformers compute it."""
    fast, reference = make(), make()
    pair = (fast, attach(fast, adapter, seed=3)), (reference, attach(reference, adapter, seed=3))
    reference.use_reference_path(REFERENCE)
    assert fast.execution.kind == "fast", fast.execution
    return pair


def randomise(adapter: Adapter, seed: int = 0, size: float = 0.2) -> None:
    """Give the adapter's zero factors values, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in adapter.named_parameters():
        parameter.data.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


def alone_nll(model: Any, batch: PackedBatch) -> Tensor:
    """Each segment by itself through the model's own forward pass: what packing must not change. float64 [T]."""
    losses = torch.zeros(len(batch.targets), dtype=torch.float64)
    starts = batch.segment_starts
    for start, end in itertools.pairwise(starts):
        ids, targets = torch.from_numpy(batch.input_ids[start:end]), torch.from_numpy(batch.targets[start:end])
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0].double()
        losses[start:end] = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    return losses
