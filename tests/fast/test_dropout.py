"""Dropout drawn by row: what is dropped of a row does not depend on what is computed beside it, nor on the path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lorabench.fast.dropout import Draws, row_seeds
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import FrozenBase, load_base
from lorabench.tokens.packing import PackedBatch, Row, make_batch, stream_rows

pytestmark = pytest.mark.usefixtures("one_thread")


def some_rows() -> list[Row]:
    generator = np.random.default_rng(0)
    documents = [generator.integers(1, 100, length).astype(np.int32) for length in (9, 30, 4, 21, 16)]
    return list(stream_rows(documents, range(5), prefix=0, context_length=16))


def gradients(base: FrozenBase, batches: list[PackedBatch], seeds: list[list[int]]) -> dict[str, torch.Tensor]:
    for batch, own in zip(batches, seeds, strict=True):
        torch.autograd.backward(base.loss(batch, own))
    found = {}
    for name, weight in base.model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None
            found[name], weight.grad = weight.grad, None
    return found


def test_seeds_are_of_seed_step_and_row_alone() -> None:
    assert row_seeds(3, 7, 2) == row_seeds(3, 7, 16)[:2]
    assert len({seed for step in range(50) for seed in (*row_seeds(0, step, 16), *row_seeds(1, step, 16))}) == 1600


def test_a_mask_keeps_as_much_as_it_should() -> None:
    batch = make_batch(some_rows()[:2])
    kept = Draws.of_rows(batch, [1, 2], torch.device("cpu")).kept(torch.empty(len(batch.input_ids), 4000), 0.3)
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.01)
    assert not torch.equal(kept[:16], kept[16:32])


@pytest.mark.parametrize("path", ["fast", "packed", "segments"])
def test_rows_may_be_computed_together_or_apart(
    tiny_model: Callable[[str], Path], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(tiny_model("smollm2"), precision="fp32", device="cpu")
    attach(base, AdapterSettings(rank=4, dropout=0.3), seed=0)
    for name, weight in base.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(1), std=0.1)
    if path != "fast":
        base.use_reference_path("a test")
        monkeypatch.setattr(base, "_packs", path == "packed")
    rows = some_rows()
    seeds = row_seeds(5, 2, len(rows))
    whole = gradients(base, [make_batch(rows)], [seeds])
    apart = gradients(base, [make_batch(rows[i::2]) for i in (0, 1)], [seeds[i::2] for i in (0, 1)])
    other = gradients(base, [make_batch(rows)], [row_seeds(5, 3, len(rows))])
    for name, gradient in whole.items():
        assert torch.allclose(apart[name], gradient, rtol=1e-4, atol=1e-5), name
        assert not torch.allclose(other[name], gradient, rtol=1e-2), name


def test_both_paths_drop_the_same(tiny_model: Callable[[str], Path]) -> None:
    base = load_base(tiny_model("gpt2"), precision="fp32", device="cpu")
    attach(base, AdapterSettings(rank=4, dropout=0.3), seed=0)
    rows = some_rows()
    batch, seeds = make_batch(rows), row_seeds(5, 2, len(rows))
    assert base.execution.kind == "fast"
    fast = gradients(base, [batch], [seeds])
    base.use_reference_path("a test")
    reference = gradients(base, [batch], [seeds])
    for name, gradient in reference.items():
        assert torch.allclose(fast[name], gradient, rtol=1e-3, atol=1e-5), name
