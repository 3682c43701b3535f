"""The optimizers: each lowers the loss, and a run that is taken up again ends bit for bit as one that never stopped."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from lorabench.core.errors import CancelledError, InputError, MissingExtraError
from lorabench.experiment.schema import Optimizer, TrainingSettings
from lorabench.training.optimization import learning_rate_at
from lorabench.training.optimizers import averaged, finish, optimizer_of
from tests.training.test_loop import SETTINGS, Run
from tests.training.tiny import GroupedAdapter, TinyAdapter

HERE = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            "8bit" in name and not find_spec("bitsandbytes"), reason="bitsandbytes is not installed"
        ),
    )
    for name in get_args(Optimizer)
    if name != "paged-adamw-8bit"
]
RATES = {"adafactor": 0.3, "sgd": 0.3}


def settings_of(name: str, **more: Any) -> TrainingSettings:
    return SETTINGS.model_copy(update={"optimizer": name, "learning_rate": RATES.get(name, 0.02), **more})


@pytest.mark.parametrize("name", HERE)
def test_a_run_taken_up_again_is_the_run_that_was_never_stopped(tmp_path: Path, name: str) -> None:
    settings = settings_of(name)
    whole, parts = Run(tmp_path / "whole", settings=settings), tmp_path / "parts"
    whole.go()
    assert whole.losses[max(whole.losses)] < 0.95 * whole.losses[1]
    with pytest.raises(CancelledError):
        Run(parts, settings=settings).go(stop_after=4)
    second = Run(parts, settings=settings)
    second.go(until_step=6)
    third = Run(parts, settings=settings)
    third.go()
    assert third.resumed_after == 6
    assert whole.losses == {**{step: whole.losses[step] for step in range(1, 5)}, **second.losses, **third.losses}
    assert third.weights() == whole.weights()


@pytest.mark.parametrize("name", HERE)
def test_groups_have_rates_of_their_own(tmp_path: Path, name: str) -> None:
    one, other = (
        Run(tmp_path / kind.__name__, settings=settings_of(name), adapter=kind)
        for kind in (TinyAdapter, GroupedAdapter)
    )
    one.go()
    other.go()
    assert one.weights() != other.weights()


def test_muon_takes_matrices_and_adamw_the_rest() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (6, 4), "a.bias": (6,), "embed_tokens.weight": (9, 4), "lm_head.weight": (9, 4)}
    ours = {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    theirs = {name: torch.nn.Parameter(weight.detach().clone()) for name, weight in ours.items()}
    optimizer = optimizer_of(
        [{"params": list(ours.values()), "rate": 1.0, "weight_decay": 0.1}],
        {weight: name for name, weight in ours.items()},
        settings_of("muon"),
    )
    others = [weight for name, weight in theirs.items() if name != "a.weight"]
    reference = [
        torch.optim.Muon([theirs["a.weight"]], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.02, weight_decay=0.1),
    ]
    for _ in range(3):
        for name, weight in ours.items():
            weight.grad = torch.randn(weight.shape, generator=generator)
            theirs[name].grad = weight.grad.clone()
        optimizer.step()
        for each in reference:
            each.step()
    for name, weight in ours.items():
        assert torch.allclose(weight, theirs[name], rtol=1e-6, atol=1e-7), name


def test_schedule_free_scores_the_average_of_its_own_points() -> None:
    """Against the definition, written out for one number."""
    weight = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = optimizer_of(
        [{"params": [weight], "rate": 1.0, "weight_decay": 0.1}], {weight: "w"}, settings_of("schedule-free")
    )
    y = z = x = 2.0
    squares = total = 0.0
    for step, rate in enumerate((0.01, 0.02, 0.02, 0.02), start=1):
        optimizer.param_groups[0]["lr"] = rate
        gradient = 3.0 * y
        weight.grad = 3.0 * weight.detach().clone()
        optimizer.step()
        squares = 0.999 * squares + 0.001 * gradient**2
        z -= rate * (gradient / ((squares / (1 - 0.999**step)) ** 0.5 + 1e-8) + 0.1 * y)
        total += rate**2
        x += rate**2 / total * (z - x)
        y = 0.1 * z + 0.9 * x
        assert float(weight.detach()) == pytest.approx(y, rel=1e-12)
        with averaged(optimizer):
            assert float(weight.detach()) == pytest.approx(x, rel=1e-12)
        assert float(weight.detach()) == pytest.approx(y, rel=1e-12)
    finish(optimizer)
    assert float(weight.detach()) == pytest.approx(x, rel=1e-12)


def test_schedule_free_keeps_its_rate() -> None:
    settings = settings_of("schedule-free", schedule="cosine", warmup_ratio=0.2)
    rates = [learning_rate_at(step, 10, settings) for step in range(10)]
    assert rates == [0.01, *[0.02] * 9]


def test_what_this_machine_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    groups = [{"params": [weight], "rate": 1.0, "weight_decay": 0.0}]
    with pytest.raises(InputError, match="there is no GPU here; take adamw-8bit"):
        optimizer_of(groups, {weight: "w"}, settings_of("paged-adamw-8bit"))
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", None)
    with pytest.raises(MissingExtraError, match="qlora"):
        optimizer_of(groups, {weight: "w"}, settings_of("adamw-8bit"))
