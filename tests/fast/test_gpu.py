"""The passes for a GPU as far as they can be tested without one: what they compute, and what they would launch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lorabench.fast.attention import Heads, Segments, attend_within
from lorabench.fast.continuation import _logits as next_logits
from lorabench.fast.gpu import attention as gpu_attention
from lorabench.fast.gpu.attention import Rows, attend_padded, takes_varlen
from lorabench.fast.gpu.kernels import GpuKernels
from lorabench.fast.gpu.passes import FUNCTIONS, CompiledPasses, Passes, compile_for
from lorabench.fast.head import Head, Targets, head_loss, head_nll
from lorabench.fast.kernels import Norm, PlainKernels, Product
from tests.fast.fast_cases import attached_pair, losses_and_gradients, packed, randomise, settings, tiny_base
from tests.fast.launches import CONTEXT, FUSED, NUM_ROWS, batch_of, count_step, real_size
from tests.fast.test_kernels import LAYOUTS, assert_alike, attention_case, random

PLAIN = PlainKernels()
LENGTHS = ([300], [7, 7, 7], [33, 150, 7, 64], [1, 40, 1, 1], [31, 32, 1, 16, 48])
pytestmark = pytest.mark.usefixtures("one_thread")


def forgetful(query: Tensor, key: Tensor, value: Tensor, heads: Heads, segments: Segments) -> Tensor:
    """The definition: each document by itself through torch's attention."""
    parts = [
        attend_within(query[start:end], key[start:end], value[start:end], heads, np.array([0, end - start]))
        for start, end in itertools.pairwise(segments.starts.tolist())
    ]
    return torch.cat(parts)


@pytest.mark.parametrize("window", [None, 5, 64, 1000])
@pytest.mark.parametrize("soft_cap", [None, 3.0])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (6, 2), (3, 1)])
def test_padded_attention_is_each_documents_own(
    queries: int, keys: int, lengths: list[int], soft_cap: float | None, window: int | None
) -> None:
    heads = Heads(queries, keys, 16, 0.3, "separate", window, soft_cap)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    sizes = (queries, keys, keys)
    d_output = random(sum(lengths), queries, 16, seed=9)
    results = []
    for attend in (attend_padded, forgetful):
        inputs = [
            random(sum(lengths), size, 16, seed=size + place).requires_grad_() for place, size in enumerate(sizes)
        ]
        output = attend(*inputs, heads, Segments(starts, None))
        output.backward(d_output)
        results.append([output.detach(), *(value.grad for value in inputs)])
    assert_alike(*results, torch.float32)


def test_rows_waste_little_and_keep_every_token() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 90)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rows = Rows.of(starts, torch.device("cpu"))
    assert rows.places is not None
    assert rows.owners is not None
    assert rows.length % 16 == 0
    assert len(set(rows.places.tolist())) == starts[-1]
    assert int((rows.owners >= 0).sum()) == starts[-1]
    assert rows.num_rows * rows.length < 1.15 * starts[-1]
    flat = random(int(starts[-1]), 2, 3)
    assert torch.equal(rows.take(rows.lay(flat)), flat)


def test_a_mask_is_made_once_a_batch() -> None:
    segments, heads = Segments(np.array([0, 20, 50], dtype=np.int32), None), Heads(2, 2, 8, 0.3, "separate")
    parts = [random(50, 2, 8, seed=seed) for seed in range(3)]
    attend_padded(*parts, heads, segments)
    before = {key: id(value) for key, value in segments.made.items()}
    attend_padded(*parts, heads, segments)
    assert before == {key: id(value) for key, value in segments.made.items()}
    assert len(before) == 3


def varlen_like(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, options: dict[str, Any]) -> Tensor:
    """What torch documents, by its definition."""
    before, after = options.get("window_size", (-1, 0))
    assert after == 0
    assert bounds.dtype == torch.int32
    scale = options["scale"]
    heads = Heads(query.shape[1], key.shape[1], query.shape[2], scale, "separate", None if before < 0 else before + 1)
    return forgetful(query, key, value, heads, Segments(bounds.numpy(), None))


def torch_2_10(query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int,
               is_causal: bool = False, return_aux: Any = None) -> Tensor:  # fmt: skip
    assert is_causal
    return varlen_like(query, key, value, cu_q, {"scale": query.shape[2] ** -0.5})


def torch_2_11(query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, *,
               return_aux: Any = None, scale: Any = None, window_size: Any = (-1, -1)) -> Tensor:  # fmt: skip
    return varlen_like(query, key, value, cu_q, {"scale": scale, "window_size": window_size})


def torch_2_13(query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, *,
               return_aux: Any = None, scale: Any = None, window_size: Any = (-1, -1),
               enable_gqa: bool = False) -> Tensor:  # fmt: skip
    assert enable_gqa == (query.shape[1] != key.shape[1])
    assert max_q == max_k == int(cu_q.diff().max())
    return varlen_like(query, key, value, cu_q, {"scale": scale, "window_size": window_size})


@pytest.fixture(params=[torch_2_10, torch_2_11, torch_2_13], ids=lambda function: function.__name__)
def varlen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """torch's kernel of several versions, computed by its definition on a processor."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", request.param)
    gpu_attention._varlen.cache_clear()
    yield request.param.__name__
    gpu_attention._varlen.cache_clear()


@pytest.mark.parametrize("window", [None, 20, 1000])
@pytest.mark.parametrize("factor", [0.25, 0.3])
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (6, 2)])
def test_every_torchs_varlen_kernel_is_called_as_it_wants(
    varlen: str, queries: int, keys: int, factor: float, window: int | None
) -> None:
    """Half precision takes it where it can say what is wanted, and padded rows elsewhere; both are right."""
    heads = Heads(queries, keys, 16, factor, "separate", window)
    segments = Segments(np.array([0, 33, 40, 90], dtype=np.int32), None)
    parts = [random(90, size, 16, dtype=torch.bfloat16, seed=size) for size in (queries, keys, keys)]
    expected = varlen != "torch_2_10" or (factor == 0.25 and window != 20)
    assert takes_varlen(torch.bfloat16, heads, segments.longest, (8, 0)) == expected
    kernels = GpuKernels(Passes(), lambda device: (8, 0))
    ours = kernels.attend_within(*parts, heads, segments)
    wide = attend_within(*(part.float() for part in parts), heads, segments.starts)
    assert_alike([ours], [wide.bfloat16()], torch.bfloat16)


@pytest.mark.parametrize(
    ("dtype", "capability", "changes", "expected"),
    [
        (torch.bfloat16, (9, 0), {}, True),
        (torch.float16, (8, 0), {}, True),
        (torch.bfloat16, (12, 0), {"width": 256}, True),
        (torch.float32, (9, 0), {}, False),
        (torch.float16, (7, 5), {}, False),
        (torch.bfloat16, (0, 0), {}, False),
        (torch.bfloat16, (9, 0), {"soft_cap": 30.0}, False),
        (torch.bfloat16, (9, 0), {"width": 20}, False),
        (torch.bfloat16, (9, 0), {"width": 264}, False),
        (torch.bfloat16, (8, 9), {"width": 208}, False),
        (torch.bfloat16, (9, 0), {"width": 208}, True),
    ],
)
def test_which_attention_a_card_takes(
    dtype: torch.dtype, capability: tuple[int, int], changes: dict[str, Any], expected: bool
) -> None:
    heads = Heads(
        **{"num_query_heads": 2, "num_key_heads": 2, "width": 64, "factor": 0.1, "layout": "separate"} | changes
    )
    assert takes_varlen(dtype, heads, 4, capability) == expected


@pytest.mark.parametrize("rotary", [0, 4, 8])
@pytest.mark.parametrize(("layout", "queries", "keys", "width"), LAYOUTS)
def test_projections_of_every_layout_are_turned_and_attended(
    layout: Any, queries: int, keys: int, width: int, rotary: int
) -> None:
    projections, heads, segments = attention_case(layout, queries, keys, width, [33, 7, 64], rotary, torch.float32)
    results = []
    for kernels in (GpuKernels(Passes()), PLAIN):
        inputs = [projection.clone().requires_grad_() for projection in projections]
        output = kernels.attend(
            tuple(value * 1.0 for value in inputs), heads, Segments(segments.starts, segments.rotation)
        )
        output.backward(random(*output.shape, seed=5))
        results.append([output.detach(), *(value.grad for value in inputs)])
    for ours, theirs in zip(*results, strict=True):
        assert float((ours - theirs).norm()) < 2e-5 * float(theirs.norm())


@pytest.mark.parametrize("num_unscored", [0, 3])
@pytest.mark.parametrize("family", ["gpt2", "pythia", "gemma"])
def test_a_model_trains_and_scores_as_on_the_processor(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, family: str, num_unscored: int
) -> None:
    """The whole path through `GpuKernels`, its passes not compiled, against PEFT's."""
    monkeypatch.setattr("lorabench.models.base.kernels_for", lambda *which: GpuKernels(Passes()))
    (fast, adapter), (reference, other) = attached_pair(lambda: tiny_base(tiny_model(family)), settings())
    randomise(adapter)
    randomise(other)
    work = [
        packed(((20, 1, 11), (9, 30), (32,)), fast.model.config.vocab_size, seed, num_unscored) for seed in range(2)
    ]
    steps = zip(losses_and_gradients(fast, adapter, work), losses_and_gradients(reference, other, work), strict=True)
    for (loss, gradients), (their_loss, theirs) in steps:
        assert loss == pytest.approx(their_loss, rel=1e-5)
        for name, gradient in gradients.items():
            assert float((gradient - theirs[name]).norm()) < 1e-4 * (float(theirs[name].norm()) + 1e-6), name
    assert torch.allclose(fast.token_nll(work[0]), reference.token_nll(work[0]), atol=1e-4)


@pytest.mark.parametrize("vocabulary", [50257, 64, 1000])
def test_logits_have_room_by_bytes_in_aligned_rows(vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorabench.fast.gpu.kernels.HEAD_BYTES", 1 << 20)
    room = GpuKernels(Passes()).room_for_logits(torch.empty(400, 8), vocabulary)
    assert room.shape[1] == vocabulary
    assert room.stride(0) % 64 == 0
    assert room.stride(0) < vocabulary + 64
    assert len(room) == 400 or (len(room) * room.stride(0) * 4 <= 1 << 20 < (len(room) + 1) * room.stride(0) * 4)


def test_half_precision_products_are_summed_in_float32() -> None:
    kernels = GpuKernels(Passes())
    left, right = (torch.empty(8, 8, dtype=torch.bfloat16, device="meta") for _ in range(2))
    called = []
    original = torch.mm

    def mm(*values: Any, **options: Any) -> Tensor:
        called.append(options)
        return original(*values, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "mm", mm)
        (out,) = kernels.multiply([Product(((left, right),), out=torch.empty(8, 8, device="meta"))])
    assert called[0]["out_dtype"] == torch.float32
    assert out.dtype == torch.float32


def cases(name: str, rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Values of a pass over so many tokens, new ones each time: passes may use them up."""
    residual, delta = random(rows, 48, seed=1, size=3.0), random(rows, 48, seed=2)
    norm = Norm(random(48, seed=3) + 1.0, random(48, seed=4), 1e-5, centred=True)
    torch._dynamo.mark_static(norm.weight, 0)
    query, key = random(rows, 4, 16, seed=5), random(rows, 2, 16, seed=6)
    angles = random(rows, 4, seed=7)
    if name == "add_norm":
        return (residual, delta, norm, torch.float32), {}
    if name == "add_norm_backward":
        total, _, mean, scale = PLAIN.add_norm(residual, delta, norm, torch.float32)
        return (random(rows, 48, seed=8), random(rows, 48, seed=9), total, mean, scale, norm), {}
    if name == "activation":
        return ("gelu_tanh", residual, delta), {}
    if name == "activation_backward_":
        return ("silu", residual, delta, random(rows, 48, seed=8)), {}
    if name == "cross_entropy_":
        return (random(rows, 130, seed=8)[:, :101], torch.arange(rows) % 101, True), {}
    return (query, key, angles.cos(), angles.sin()), {"back": True}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # inductor itself calls it
def test_compiled_passes_are_the_plain_ones_and_are_compiled_once() -> None:
    """Through inductor on the processor: ten numbers of tokens, one of them as large as a width."""
    passes = CompiledPasses()
    for name in FUNCTIONS:
        before = passes.num_compiled
        for rows in (48, 5, 300, 17, 101, 16, 64, 2, 33, 1024):
            values, options = cases(name, rows)
            ours = passes.run(name, *values, **options)
            written = values[0].clone() if name == "cross_entropy_" else None
            values, options = cases(name, rows)
            theirs = FUNCTIONS[name](*values, **options)
            pairs = list(zip(ours, theirs, strict=True)) if isinstance(ours, tuple) else [(ours, theirs)]
            if written is not None:
                pairs.append((written, values[0]))
            for one, other in pairs:
                assert one.dtype == other.dtype
                assert torch.allclose(one, other, rtol=1e-6, atol=2e-6), (name, rows, float((one - other).abs().max()))
            assert passes.num_compiled == before + 1, f"{name} was compiled again for {rows} tokens"
    assert passes.compile_seconds > 0.0


def test_where_nothing_can_be_compiled_torch_computes_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*values: Any, **options: Any) -> Any:
        def never(*values: Any) -> Any:
            raise RuntimeError("no C compiler")

        return never

    monkeypatch.setattr(torch, "compile", fail)
    passes = compile_for("cpu")
    assert passes.name == "torch"
    assert "torch.compile does not work here" in GpuKernels(passes).reason
    assert caplog.text.count("no C compiler") == 1


BUDGETS = {"gpt2": (1100, 114.0), "pythia-410m": (2300, 277.0), "gemma-2b": (1900, 629.0)}
"""Launches a step, and gigabytes outside products before there were such passes."""


@pytest.mark.parametrize(
    "name", ["gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pythia-410m", "gemma-2b"))]
)
def test_a_step_keeps_its_budget_of_launches_and_bytes(name: str) -> None:
    base, adapter = real_size(name)
    windows, stories = (count_step(base, adapter, batch_of(kind)) for kind in ("windows", "stories"))
    most, gigabytes_before = BUDGETS[name]
    assert windows.total <= most, windows.operations
    assert stories.total <= 1.1 * windows.total, stories.operations
    for launches in (windows, stories):
        assert launches.num_uploads == 1, "a batch is uploaded once, and nothing inside the layers"
        assert launches.gigabytes <= gigabytes_before / 3, launches.bytes
        assert launches.num_products > 0
        assert not {"_index_put_impl_", "index_put_", "nonzero"} & set(launches.operations)
        assert launches.operations["index"] <= 2, "the embeddings are looked up, and nothing in the layers"
    assert set(FUSED) - {"rotate"} <= set(windows.operations)
    assert len(batch_of("windows").targets) == NUM_ROWS * CONTEXT


@pytest.mark.parametrize("soft_cap", [None, 5.0])
@pytest.mark.parametrize("trained", [False, True])
def test_a_head_over_a_vocabulary_filled_up_is_the_same(trained: bool, soft_cap: float | None) -> None:
    """Losses, gradients and scores; and no token beyond the vocabulary has a logit that could be chosen."""
    results = []
    for alignment in (1, 64):
        hidden = random(40, 16, seed=1).requires_grad_()
        weight = random(101, 16, seed=2).requires_grad_(trained)
        head = Head(weight, soft_cap, alignment)
        places = torch.arange(0, 40, 2)
        targets = Targets(torch.arange(20) * 5, places)
        loss = head_loss(hidden, head, targets, PLAIN)
        loss.backward()
        nll = head_nll(hidden.detach(), head, targets, PLAIN)
        assert head.weight_like(hidden).shape[0] == (101 if alignment == 1 else 128)
        decoder: Any = SimpleNamespace(head=head, kernels=PLAIN)
        logits = next_logits(decoder, hidden.detach())
        assert logits.shape == (40, 101)
        results.append([loss.detach()[None], hidden.grad, nll, logits, *([weight.grad] if trained else [])])
    assert_alike(*results, torch.float32)
