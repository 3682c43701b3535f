"""Gradient checkpointing changes what is kept, not what comes out: losses and gradients stay bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lorabench.fast.dropout import row_seeds
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.prompts import PromptSettings
from lorabench.models.base import FrozenBase, Precision
from lorabench.tokens.packing import PackedBatch
from tests.fast.fast_cases import FAMILIES, REFERENCE, batches, randomise, settings, tiny_base
from tests.marks import slow

TinyModel = Callable[[str], Path]
PATHS = ("fast", "packed", "one document")
pytestmark = pytest.mark.usefixtures("one_thread")


def base_on(
    path: str, folder: Path, adapter: dict[str, Any], precision: Precision = "fp32"
) -> tuple[FrozenBase, Adapter]:
    base = tiny_base(folder, precision)
    attached = attach(base, settings(**adapter), seed=3)
    randomise(attached)
    if path != "fast":
        base.use_reference_path(REFERENCE)
        base._packs = path == "packed"
    assert base.execution.kind == ("fast" if path == "fast" else "reference")
    return base, attached


def step(base: FrozenBase, adapter: Adapter, batch: PackedBatch, *, drawn_by_row: bool) -> tuple[torch.Tensor, ...]:
    """The loss and every gradient of one step."""
    torch.manual_seed(1)
    loss = base.loss(batch, row_seeds(5, 2, len(batch.row_starts) - 1) if drawn_by_row else None)
    torch.rand(3)  # what is drawn between the passes
    torch.autograd.backward(loss)
    gradients = []
    for _, parameter in adapter.named_parameters():
        assert parameter.grad is not None
        gradients.append(parameter.grad)
        parameter.grad = None
    return loss.detach(), *gradients


@pytest.mark.parametrize("drawn_by_row", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("family", "adapter"),
    [
        ("smollm2", {"dropout": 0.2}),
        *(slow(family, {}) for family in FAMILIES),
        *(slow(family, {"dropout": 0.2}) for family in FAMILIES[:3]),
        slow("smollm2", {"method": "dora"}),
        slow("smollm2", {"target_modules": "mlp", "dropout": 0.1}),
    ],
)
def test_nothing_changes_but_what_is_kept(
    tiny_model: TinyModel, path: str, family: str, adapter: dict[str, Any], precision: Precision, drawn_by_row: bool
) -> None:
    base, attached = base_on(path, tiny_model(family), adapter, precision)
    (batch,) = batches(base, 1)
    kept, results = dict[bool, int](), dict[bool, tuple[torch.Tensor, ...]]()
    for base.checkpointing in (False, True):
        saved = set[int]()

        def note(tensor: torch.Tensor, saved: set[int] = saved) -> torch.Tensor:
            saved.add(tensor.untyped_storage().data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            results[base.checkpointing] = step(base, attached, batch, drawn_by_row=drawn_by_row)
        kept[base.checkpointing] = len(saved)
    assert kept[True] < kept[False] / 2
    for plain, again in zip(results[False], results[True], strict=True):
        assert torch.equal(plain, again)


def test_it_holds_until_another_adapter_is_attached(tiny_model: TinyModel) -> None:
    base, attached = base_on("fast", tiny_model("smollm2"), {})
    assert base.can_checkpoint
    base.checkpointing = True
    attached.detach()
    assert not base.checkpointing
    attach(base, PromptSettings(method="prefix_tuning"), seed=0)
    assert not base.can_checkpoint, "keys and values would be put before the text twice"
