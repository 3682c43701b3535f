"""Steps as CUDA graphs, as far as they can be tested without a card: what a graph would read, and when there is one.

`benchmarks/gpu_check.sh` captures real ones and compares their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lorabench.fast.attention import Heads, attend_within
from lorabench.fast.forward import Uploaded
from lorabench.fast.gpu import attention as gpu_attention
from lorabench.fast.gpu.captured import MOST_KEPT, CapturedSteps, Size, can_capture
from lorabench.fast.gpu.kernels import GpuKernels
from lorabench.fast.gpu.passes import Passes
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.models.base import FrozenBase
from lorabench.tokens.packing import PackedBatch
from lorabench.training.meeting import Meeting, Member, Wanted
from tests.fast.fast_cases import packed, randomise, settings, tiny_base

CPU = torch.device("cpu")
ROWS = ((20, 1, 11), (9, 23), (32,))
pytestmark = pytest.mark.usefixtures("one_thread")


def varlen(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, other: Tensor, longest: int, longest_key: int, *,
           scale: float, window_size: tuple[int, int], enable_gqa: bool) -> Tensor:  # fmt: skip
    """torch's kernel by its definition: it reads the bounds where they lie, and documents may be empty."""
    assert bounds is other
    assert enable_gqa == (query.shape[1] != key.shape[1])
    lengths = bounds.diff()
    assert int(lengths.max()) <= longest == longest_key
    heads = Heads(query.shape[1], key.shape[1], query.shape[2], scale, "separate")
    starts = torch.cat([bounds[:1], bounds[1:][lengths > 0]]).numpy()
    return attend_within(query, key, value, heads, starts)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor that computes as a card would."""
    monkeypatch.setattr("lorabench.models.base.kernels_for", lambda *which: GpuKernels(Passes(), lambda device: (9, 0)))
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen)
    for module in ("kernels", "captured"):
        monkeypatch.setattr(f"lorabench.fast.gpu.{module}.takes_varlen", lambda *which: True)
    gpu_attention._varlen.cache_clear()
    yield
    gpu_attention._varlen.cache_clear()


class Recorded:
    """A graph that computes its function anew."""

    num_captured = 0

    def __init__(self, compute: Callable[[], None]) -> None:
        Recorded.num_captured += 1
        self.replay = compute


def with_adapter(folder: Any, **changes: Any) -> tuple[FrozenBase, Adapter]:
    base = tiny_base(folder)
    adapter = attach(base, settings(**changes), seed=3)
    randomise(adapter)
    return base, adapter


def gradients(adapter: Adapter) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in adapter.named_parameters() if value.grad is not None}


def plainly(base: FrozenBase, adapter: Adapter, work: list[PackedBatch]) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of the batches, and their gradients, which add up."""
    losses = [base.add_gradients(batch, [0] * 3, batch.num_scored, scaler()) for batch in work]
    found = gradients(adapter)
    clear(adapter)
    return [float(loss) for loss in losses], found


def clear(adapter: Adapter) -> None:
    for parameter in adapter.parameters:
        parameter.grad = None


def scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=False)


def assert_near(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert float((gradient - theirs[name]).norm()) < 1e-5 * (float(theirs[name].norm()) + 1e-6), name


@pytest.mark.parametrize("num_unscored", [0, 3])
@pytest.mark.parametrize("family", ["gpt2", "pythia", "gemma", "smollm2"])
def test_what_a_graph_reads_has_the_batchs_loss_and_gradients(
    tiny_model: Any, card: None, family: str, num_unscored: int
) -> None:
    """Five steps of two batches each, of one size: the first is computed plainly, the second as it will be captured."""
    base, adapter = with_adapter(tiny_model(family))
    vocabulary = base.model.config.vocab_size
    assert can_capture(base.decoder, CPU)
    steps = CapturedSteps(base.decoder, adapter.parameters, Recorded)
    before = Recorded.num_captured
    for number in range(5):
        work = [packed(ROWS, vocabulary, 2 * number + part, num_unscored) for part in range(2)]
        expected, theirs = plainly(base, adapter, work)
        losses = []
        for batch in work:
            loss = steps.add_gradients(base.decoder.upload(batch), torch.tensor(1.0 / batch.num_scored))
            if loss is None:
                assert number == 0
                loss = base.add_gradients(batch, [0] * 3, batch.num_scored, scaler())
            losses.append(float(loss))
        assert losses == pytest.approx(expected, rel=1e-6)
        assert_near(gradients(adapter), theirs)
        clear(adapter)
    assert Recorded.num_captured == before + 1
    assert steps.num_graphs == 1


def test_batches_of_one_size_share_a_graph_whatever_their_documents(tiny_model: Any, card: None) -> None:
    base, adapter = with_adapter(tiny_model("smollm2"))
    vocabulary = base.model.config.vocab_size
    steps = CapturedSteps(base.decoder, adapter.parameters, Recorded)
    before = Recorded.num_captured
    for number, rows in enumerate(((*ROWS[:2], (5, 27)), ROWS, ((30, 2), (16, 16), (32,)), ((32,), (32,), (32,)))):
        batch = packed(rows, vocabulary, number, num_unscored=number)
        expected, theirs = plainly(base, adapter, [batch])
        loss = steps.add_gradients(base.decoder.upload(batch), torch.tensor(1.0 / batch.num_scored))
        if number:
            assert float(loss) == pytest.approx(expected[0], rel=1e-6)
            assert_near(gradients(adapter), theirs)
        clear(adapter)
    assert Recorded.num_captured == before + 1


def test_graphs_are_few_and_end_with_the_weights_they_read(tiny_model: Any, card: None) -> None:
    base, adapter = with_adapter(tiny_model("gpt2"))
    vocabulary = base.model.config.vocab_size
    steps = CapturedSteps(base.decoder, adapter.parameters, Recorded)

    def do(length: int) -> bool:
        """Whether the graph did it, or what is to become one."""
        batch = packed(((length,),), vocabulary)
        done = steps.add_gradients(base.decoder.upload(batch), torch.tensor(1.0)) is not None
        clear(adapter)
        return done

    assert not any(map(do, range(40, 40 + 2 * MOST_KEPT)))  # sizes that come once keep no others from a graph
    lengths = range(10, 10 + MOST_KEPT)
    assert not any(map(do, lengths))
    assert all(map(do, lengths))
    assert not do(30)
    assert not do(30)
    before = Recorded.num_captured
    assert do(10)
    assert Recorded.num_captured == before + 1
    first = adapter.parameters[0]
    first.data = first.data.clone()
    assert not do(10)


def test_what_cannot_be_captured_is_computed_and_said(tiny_model: Any, card: None) -> None:
    base, adapter = with_adapter(tiny_model("gpt2"))
    batch = packed(ROWS, base.model.config.vocab_size)

    def fail(compute: Callable[[], None]) -> Any:
        compute()
        raise RuntimeError("operation not permitted\n when stream is capturing")

    steps = CapturedSteps(base.decoder, adapter.parameters, fail)
    base._captured = steps
    expected, theirs = plainly(base, adapter, [batch])
    sent = base.send(batch)
    for _ in range(5):
        loss = base.add_gradients(sent, [0] * 3, batch.num_scored, scaler())
        assert float(loss) == pytest.approx(expected[0], rel=1e-6)
        assert_near(gradients(adapter), theirs)
        clear(adapter)
    assert steps.problem == "operation not permitted when stream is capturing"
    assert base.execution.kind == "fast"
    assert "no CUDA graphs" in base.execution.reason
    assert "not permitted" in base.execution.reason
    base.choose_path()
    assert "no CUDA graphs" not in base.execution.reason


def test_dropout_and_checkpointing_take_no_graph(tiny_model: Any, card: None) -> None:
    for dropout, checkpointing in ((0.1, False), (0.0, True)):
        base, adapter = with_adapter(tiny_model("gpt2"), dropout=dropout)
        base.checkpointing = checkpointing
        batch = packed(ROWS, base.model.config.vocab_size)
        base._captured = CapturedSteps(base.decoder, adapter.parameters, Recorded)
        before = Recorded.num_captured
        for _ in range(4):
            base.add_gradients(base.send(batch), [1, 2, 3], batch.num_scored, scaler())
        assert Recorded.num_captured == before


def test_a_run_that_waits_for_no_other_has_its_graph_too(tiny_model: Any, card: None) -> None:
    """As runs side by side are timed against it."""
    base = tiny_base(tiny_model("gpt2"))
    member = Member(base, Meeting(1), 0)
    adapter = attach(member, settings(), seed=3)
    member._captured = CapturedSteps(member.decoder, adapter.parameters, Recorded)
    batch = packed(ROWS, base.model.config.vocab_size)
    for _ in range(3):
        member.alone(Wanted(batch, [0] * 3, batch.num_scored, scaler()))
        clear(adapter)
    assert member.has_graphs


@pytest.mark.parametrize(("lengths", "expected"), [
    ([1024] * 16, Size(16384, 64, 1024, 16384)),
    ([200] * 81 + [184], Size(16384, 128, 1024, 16384)),
    ([2000, 100], Size(2100, 64, 2048, 2100)),
    ([100, 30], Size(130, 64, 130, 130)),
])  # fmt: skip
def test_sizes_are_rounded_up(lengths: list[int], expected: Size) -> None:
    batch = packed([lengths], 100)
    assert Size.of(Uploaded.of(batch, CPU)) == expected
    few = packed([lengths], 100, num_unscored=min(lengths) - 1)
    scored = Size.of(Uploaded.of(few, CPU)).num_scored
    assert few.num_scored <= scored <= min(few.num_scored + 1023, int(np.sum(lengths)))


def test_on_a_processor_nothing_is_captured(tiny_model: Any) -> None:
    base, _ = with_adapter(tiny_model("gpt2"))
    assert not can_capture(base.decoder, CPU)
