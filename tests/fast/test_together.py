"""Several runs in one pass over their base: each learns what it learns alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.amp import GradScaler

from lorabench.fast.dropout import Draws, row_seeds
from lorabench.fast.kernels import PlainKernels
from lorabench.fast.together import SharedPass
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import FrozenBase
from lorabench.tokens.packing import PackedBatch
from lorabench.training.meeting import Meeting, Member, Wanted
from tests.fast.fast_cases import batches, multiplies_itself, packed, settings, tiny_base
from tests.fast.launches import Launches, batch_of, clipping_and_optimizer, count_step, real_size

pytestmark = pytest.mark.usefixtures("one_thread")
RATES = (3e-3, 1e-2, 1e-3)
NUM_STEPS = 5


class SavingLaunches(PlainKernels):
    """As a GPU's, which are computed in torch here."""

    saves_launches = True


def another(base: FrozenBase) -> FrozenBase:
    """Over the same weights."""
    return FrozenBase(base.model_for_another(), base.device, base.precision)


def variants(dropout: float) -> list[AdapterSettings]:
    """Of another rank and scaling each, one of them on two of the layers, one with dropout if there is any."""
    return [
        settings(rank=4, alpha=8.0),
        settings(rank=2, alpha=6.0, dropout=dropout),
        settings(method="lora_fa", rank=3, alpha=3.0, target_modules="attention"),
    ]


def work_of(base: FrozenBase, run: int) -> list[PackedBatch]:
    """Another text for each run, the last batch shorter, with targets that are not scored."""
    whole = batches(base, NUM_STEPS * 3)[run::3]
    return [*whole[:-1], packed([[9, 5]], base.model.config.vocab_size, run, num_unscored=2)]


def draws_of(base: FrozenBase, batch: PackedBatch, run: int, step: int) -> Draws:
    return Draws.of_rows(batch, row_seeds(run, step, batch.num_rows), base.device)


def optimizer_of(adapter: Adapter, run: int) -> torch.optim.Optimizer:
    return torch.optim.AdamW(adapter.parameters, lr=RATES[run])


def train_alone(base: FrozenBase, adapter: Adapter, run: int) -> list[float]:
    optimizer, losses = optimizer_of(adapter, run), []
    for step, batch in enumerate(work_of(base, run)):
        loss = base.loss(batch, row_seeds(run, step, batch.num_rows))
        torch.autograd.backward(loss / batch.num_scored)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()) / batch.num_scored)
    return losses


def train_together(bases: Sequence[FrozenBase], adapters: Sequence[Adapter], masked: bool) -> list[list[float]]:
    decoders = [base.decoder for base in bases]
    if masked:
        decoders = [replace(decoder, kernels=SavingLaunches()) for decoder in decoders if decoder is not None]
    shared = SharedPass([decoder for decoder in decoders if decoder is not None])
    optimizers = [optimizer_of(adapter, run) for run, adapter in enumerate(adapters)]
    work = [work_of(base, run) for run, base in enumerate(bases)]
    losses: list[list[float]] = [[] for _ in bases]
    for step in range(NUM_STEPS):
        own = [batches[step] for batches in work]
        draws = [draws_of(bases[run], batch, run, step) for run, batch in enumerate(own)]
        nats = shared.losses(own, draws)
        torch.autograd.backward(nats, 1.0 / torch.tensor([float(batch.num_scored) for batch in own]))
        for run, optimizer in enumerate(optimizers):
            optimizer.step()
            optimizer.zero_grad()
            losses[run].append(float(nats[run].detach()) / own[run].num_scored)
    return losses


@pytest.mark.slow
def test_four_runs_launch_at_most_three_tenths_of_four_alone() -> None:
    """On a GPU a step of GPT-2 with 4 x 512 tokens is as long as what it launches; whatever the ranks."""
    base, adapter = real_size("gpt2")
    batch = batch_of("windows", 4, 512)
    alone = count_step(base, adapter, batch).total
    adapter.detach()
    bases = [another(base) for _ in range(4)]
    adapters = [attach(twin, settings(rank=rank), seed=0) for twin, rank in zip(bases, (8, 16, 16, 64), strict=True)]
    shared = SharedPass([twin.decoder for twin in bases if twin.decoder is not None])
    for _ in range(2):  # the first makes the mask
        with Launches() as launches:
            torch.autograd.backward(shared.losses([batch] * 4), torch.ones(4, device="meta"))
        parameters = [parameter for own in adapters for parameter in own.parameters]
        assert all(parameter.grad is not None for parameter in parameters)
        for parameter in parameters:
            parameter.grad = None
    own = sum(clipping_and_optimizer(adapter.parameters) for adapter in adapters)
    assert launches.num_uploads == 1
    assert launches.total + own <= 0.3 * 4 * alone, launches.operations


@pytest.mark.parametrize("masked", [False, True], ids=["sliced", "masked"])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("family", ["gpt2", "smollm2"])
def test_runs_beside_one_another_learn_what_they_learn_alone(
    tiny_model: Callable[[str], Path], family: str, dropout: float, masked: bool
) -> None:
    chosen = variants(dropout)
    shared = tiny_base(tiny_model(family))
    bases = [another(shared) for _ in chosen]
    adapters = [attach(base, own, seed=run) for run, (base, own) in enumerate(zip(bases, chosen, strict=True))]
    together = train_together(bases, adapters, masked)
    for run, own in enumerate(chosen):
        alone = tiny_base(tiny_model(family))
        adapter = attach(alone, own, seed=run)
        assert together[run] == pytest.approx(train_alone(alone, adapter, run), rel=1e-5)
        for (name, expected), found in zip(adapter.named_parameters(), adapters[run].parameters, strict=True):
            torch.testing.assert_close(
                found, expected, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name} {text}"
            )
    for adapter in adapters:
        adapter.detach()


def test_a_run_that_diverges_leaves_those_beside_it_as_they_are(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With masks too, as on a GPU, where a product with another run's rows would be NaN."""
    monkeypatch.setattr("lorabench.models.base.kernels_for", lambda *which: SavingLaunches())
    meeting, shared = Meeting(2), tiny_base(tiny_model("smollm2"))
    members = [Member(shared, meeting, number) for number in range(2)]
    adapters = [attach(member, settings(rank=2, alpha=4.0), seed=0) for member in members]
    for parameter in adapters[0].parameters:
        parameter.data.fill_(1e30)
    wanted = {run: Wanted(batch, [0], 1, GradScaler(enabled=False)) for run, batch in enumerate(batches(shared, 2))}
    losses = meeting.pass_over(wanted)
    found = [parameter.grad for parameter in members[1].trained]
    assert not losses[0].isfinite()
    for parameter in members[1].trained:
        parameter.grad = None
    assert losses[1] == members[1].alone(wanted[1])
    for parameter, gradient in zip(members[1].trained, found, strict=True):
        assert gradient is not None
        assert parameter.grad is not None
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient, parameter.grad)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_in_bfloat16_by_our_own_products_they_are_the_same_bit_for_bit(
    tiny_model: Callable[[str], Path], dropout: float
) -> None:
    """So whatever runs go on beside it, a run that was killed ends as it would have."""
    if not multiplies_itself():
        pytest.skip("torch's matrix library multiplies bfloat16 here, in another order with other rows")
    chosen = variants(dropout)
    shared = tiny_base(tiny_model("smollm2"), "bf16")
    bases = [another(shared) for _ in chosen]
    adapters = [attach(base, own, seed=run) for run, (base, own) in enumerate(zip(bases, chosen, strict=True))]
    together = train_together(bases, adapters, masked=False)
    for run, own in enumerate(chosen):
        alone = tiny_base(tiny_model("smollm2"), "bf16")
        adapter = attach(alone, own, seed=run)
        assert together[run] == train_alone(alone, adapter, run)
        for expected, found in zip(adapter.parameters, adapters[run].parameters, strict=True):
            assert torch.equal(expected, found)
