from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lorabench.fast.attention import Heads, Layout, Rotation, Segments
from lorabench.fast.choice import kernels_for
from lorabench.fast.kernels import Kernels, Norm, PlainKernels, Product
from lorabench.tokens.packing import IGNORED

DTYPES = (torch.float32, torch.bfloat16)
NO_PRODUCTS = "needs AVX512-BF16 without AMX: elsewhere torch multiplies, and our own products are tested nowhere"
PLAIN = PlainKernels()


@pytest.fixture
def compiled() -> Kernels:
    kernels = kernels_for("cpu")
    assert kernels.name == "compiled"
    return kernels


@pytest.fixture(params=["products of our own", "torch"])
def multiplying(request: pytest.FixtureRequest, compiled: Kernels) -> Kernels:
    """Who multiplies in bfloat16: our C++ needs AVX512-BF16 for it, and leaves it to torch elsewhere."""
    if request.param == "torch":
        return PLAIN
    if getattr(compiled, "_products", None) is None:
        pytest.skip(NO_PRODUCTS)
    return compiled


def random(*sizes: int, dtype: torch.dtype = torch.float32, seed: int = 0, size: float = 1.0) -> Tensor:
    return (torch.randn(*sizes, generator=torch.Generator().manual_seed(seed)) * size).to(dtype)


def assert_alike(ours: Any, theirs: Any, dtype: torch.dtype) -> None:
    """Equal up to rounding in the activations' type."""
    tolerance = 1e-5 if dtype == torch.float32 else 1.6e-2
    for left, right in zip(ours, theirs, strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype
            assert torch.allclose(left.float(), right.float(), rtol=tolerance, atol=tolerance)


def matrix(rows: int, columns: int, dtype: torch.dtype, *, transposed: bool, seed: int) -> Tensor:
    return (
        random(columns, rows, dtype=dtype, seed=seed).t()
        if transposed
        else random(rows, columns, dtype=dtype, seed=seed)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 7, 5), (100, 70, 33), (257, 193, 576), (16, 576, 1023), (40, 35, 9001)]
)
def test_products_agree(multiplying: Kernels, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    """Sums of products of every layout, with odd sizes, into tensors of every kind."""
    rows, columns, inner = shape
    for left_turned, right_turned, out_turned in itertools.product([False, True], repeat=3):
        factors = (
            matrix(rows, inner, dtype, transposed=left_turned, seed=1),
            matrix(inner, columns, dtype, transposed=right_turned, seed=2),
        )
        more = (
            matrix(rows, 6, dtype, transposed=left_turned, seed=3),
            matrix(6, columns, dtype, transposed=not right_turned, seed=4),
        )
        bias = None if left_turned else random(columns, dtype=dtype, seed=5)
        for terms, out_dtype in (((factors,), torch.float32), ((factors, more), dtype)):
            exact = sum(left.double() @ right.double() for left, right in terms) + (
                0.0 if bias is None else bias.double()
            )
            scale = max(1.0, float(exact.abs().max()))  # type: ignore[union-attr]
            out = torch.full((rows, columns), torch.nan, dtype=out_dtype)
            if out_turned:
                out = out.t().contiguous().t()
            multiplying.multiply([Product(terms, bias, out)])
            assert float((out.double() - exact).abs().max()) < scale * (1e-6 if dtype == torch.float32 else 8e-3)


def test_a_product_of_any_views_is_right(multiplying: Kernels) -> None:
    left = random(1, 1, dtype=torch.bfloat16).expand(40, 64)
    right = random(128, 80, dtype=torch.bfloat16)[::2, ::2]
    for terms in (((left, right),), ((left, right), (right[:40], left.expand(40, 64)[:, :40].t()))):
        exact = sum((one.double() @ other.double()) for one, other in terms)
        assert torch.allclose(multiplying.multiply([Product(terms)])[0].double(), exact, rtol=1e-2, atol=0.1)


def test_products_of_one_call_are_independent(multiplying: Kernels) -> None:
    """Into parts of one tensor, from parts of another, with nothing written beside them."""
    inputs, out = random(50, 90, dtype=torch.bfloat16, seed=1), torch.full((50, 120), 7.0, dtype=torch.bfloat16)
    sizes = (16, 33, 40)
    weights = [random(size, 30, dtype=torch.bfloat16, seed=size) for size in sizes]
    pieces, places = inputs.split(30, dim=1), out[:, 10:99].split(sizes, dim=1)
    results = multiplying.multiply(
        [Product(((piece, w.t()),), out=place) for piece, w, place in zip(pieces, weights, places, strict=True)]
    )
    for piece, weight, place, result in zip(pieces, weights, places, results, strict=True):
        assert result is place
        assert_alike([place], [(piece.float() @ weight.float().t()).bfloat16()], torch.bfloat16)
    assert bool((out[:, :10] == 7.0).all())
    assert bool((out[:, 99:] == 7.0).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (130, 576), (5, 16)])
def test_norms_agree(compiled: Kernels, dtype: torch.dtype, centred: bool, shape: tuple[int, int]) -> None:
    rows, width = shape
    norm = Norm(random(width, seed=1) + 1.0, random(width, seed=2) if centred else None, 1e-5, centred)
    residual, delta = random(rows, width, seed=3, size=3.0), random(rows, width, dtype=dtype, seed=4)
    d_total, d_normed = random(rows, width, seed=5), random(rows, width, dtype=dtype, seed=6)
    if width == 1 and centred:
        norm = Norm(norm.weight, norm.bias, 1.0, centred)
    for more in (delta, None):
        both = [kernels.add_norm(residual, more, norm, dtype) for kernels in (compiled, PLAIN)]
        assert_alike([tensor if tensor is None else tensor.flatten() for tensor in both[0]],
                     [tensor if tensor is None else tensor.flatten() for tensor in both[1]], dtype)  # fmt: skip
        for passed in (d_total, None):
            ours, theirs = (
                kernels.add_norm_backward(passed, d_normed, total, mean, scale, norm)
                for kernels, (total, _, mean, scale) in zip((compiled, PLAIN), both, strict=True)
            )
            assert_alike(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["silu", "gelu_tanh", "gelu_erf"])
@pytest.mark.parametrize("gated", [True, False])
def test_activations_agree_from_end_to_end_of_the_range(
    compiled: Kernels, dtype: torch.dtype, kind: Any, gated: bool
) -> None:
    ends = torch.tensor([-3e9, -1.6e9, -1e9, -200.0, 200.0, 1e9, 1.6e9, 3e9, 0.0, -0.0, 1e-30])
    gate = torch.cat([ends, torch.linspace(-100, 100, 4001), torch.linspace(-6, 6, 4001)])
    gate = gate[: len(gate) // 5 * 5].view(-1, 5).to(dtype)
    up = random(*gate.shape, dtype=dtype, seed=1) if gated else None
    d_out = random(*gate.shape, dtype=dtype, seed=2)
    assert_alike([compiled.activation(kind, gate, up)], [PLAIN.activation(kind, gate, up)], dtype)
    active = compiled.activation(kind, gate, up)
    theirs = PLAIN.activation_backward_(kind, gate, up, d_out)
    ours = compiled.activation_backward_(kind, gate.clone(), None if up is None else up.clone(), d_out.clone())
    assert_alike(ours, theirs, dtype)
    assert torch.equal(ours[2], active), "made again, it is the same"


LAYOUTS: list[tuple[Layout, int, int, int]] = [
    ("separate", 6, 2, 64),
    ("separate", 4, 1, 8),
    ("stacked", 3, 3, 32),
    ("interleaved", 2, 2, 80),
]


def attention_case(
    layout: Layout, queries: int, keys: int, width: int, lengths: list[int], rotary: int, dtype: torch.dtype
) -> tuple[tuple[Tensor, ...], Heads, Segments]:
    """Projections, their heads and their segments."""
    num_tokens = sum(lengths)
    widths = [queries * width, keys * width, keys * width]
    sizes = widths if layout == "separate" else [sum(widths)]
    projections = tuple(random(num_tokens, size, dtype=dtype, seed=seed, size=2.0) for seed, size in enumerate(sizes))
    angles = random(num_tokens, rotary // 2, seed=9)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    segments = Segments(starts, Rotation(angles.cos(), angles.sin()) if rotary else None)
    return projections, Heads(queries, keys, width, 0.3, layout), segments


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rotary", [0, 4, 8])
@pytest.mark.parametrize("lengths", [[300], [1], [1, 1, 1], [33, 150, 7, 64], [31, 32, 1]], ids=str)
@pytest.mark.parametrize(("layout", "queries", "keys", "width"), LAYOUTS)
def test_attention_agrees(
    compiled: Kernels,
    dtype: torch.dtype,
    rotary: int,
    lengths: list[int],
    layout: Layout,
    queries: int,
    keys: int,
    width: int,
) -> None:
    projections, heads, segments = attention_case(layout, queries, keys, width, lengths, rotary, dtype)
    d_output = random(sum(lengths), queries * width, dtype=dtype, seed=5)
    results = []
    for kernels, wanted in ((compiled, dtype), (PLAIN, torch.float32)):
        inputs = tuple(projection.to(wanted, copy=True).requires_grad_() for projection in projections)
        output = kernels.attend(tuple(value * 1.0 for value in inputs), heads, segments)
        output.backward(d_output.to(wanted))
        results.append([output.detach().float(), *(value.grad.float() for value in inputs if value.grad is not None)])
    assert len(results[0]) == 1 + len(projections)
    for ours, theirs in zip(*results, strict=True):
        size = max(float(theirs.norm()), float(d_output.float().norm()))  # one token alone: its gradient is nothing
        assert float((ours - theirs).norm()) < (2e-5 if dtype == torch.float32 else 8e-3) * size


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_sees_its_own_document_only(compiled: Kernels, dtype: torch.dtype) -> None:
    projections, heads, segments = attention_case("separate", 4, 2, 16, [40, 50, 3], 0, dtype)
    before = compiled.attend(projections, heads, segments)
    for projection in projections:
        projection[:40] = float("nan")
        projection[89] = 7.0
    after = compiled.attend(projections, heads, segments)
    assert torch.equal(before[40:89], after[40:89])
    assert torch.equal(before[90:], after[90:])
    assert after[:40].isnan().all()


def test_what_a_backward_pass_used_up_is_not_used_again(compiled: Kernels) -> None:
    projections, heads, segments = attention_case("separate", 2, 2, 8, [20], 4, torch.float32)
    output = compiled.attend(tuple(value.requires_grad_() * 1.0 for value in projections), heads, segments)
    output.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1.0, 40.0])
def test_cross_entropy_agrees(compiled: Kernels, dtype: torch.dtype, size: float) -> None:
    logits = random(9, 1001, dtype=dtype, size=size)
    targets = torch.tensor([0, 1000, 5, 5, 17, 500, 999, 1, 2])
    for gradient in (True, False):
        ours, theirs = logits.clone(), logits.clone()
        losses = [
            kernels.cross_entropy_(x, targets, gradient=gradient) for kernels, x in ((compiled, ours), (PLAIN, theirs))
        ]
        assert_alike(losses[:1], losses[1:], torch.float32)
        if gradient:
            assert_alike([ours], [theirs], dtype)
    assert IGNORED not in targets


def test_nothing_between_rows_of_logits_is_taken_for_a_number() -> None:
    """oneDNN with AMX multiplies what follows a row by zero, which NaN survives."""
    poison = [torch.full((64 * 432,), torch.nan, dtype=torch.bfloat16) for _ in range(20)]
    del poison
    room = PLAIN.room_for_logits(torch.empty(64, 8, dtype=torch.bfloat16), 400)
    room.copy_(random(64, 400))
    assert room.stride(0) > 400
    assert bool(room.as_strided((64, room.stride(0)), room.stride()).isfinite().all())
    assert bool(torch.mm(room, random(400, 16, dtype=torch.bfloat16)).isfinite().all())


@pytest.mark.slow
def test_the_library_is_compiled_once_and_again_when_damaged(tmp_path: Path) -> None:
    code = "from lorabench.fast.choice import kernels_for; print(kernels_for('cpu').name)"
    environment = {**os.environ, "LORABENCH_CACHE": str(tmp_path)}
    made: list[list[tuple[str, int]]] = []
    for time in ("first", "again", "damaged"):
        if time == "damaged":
            (library,) = (tmp_path / "kernels").glob("*.so")
            library.write_bytes(library.read_bytes()[:-100])
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "compiled"
        assert done.stderr == ""
        made.append(sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "kernels").iterdir()))
    assert [Path(name).suffix for name, _ in made[0]] == [".sha256", ".so"]
    assert made[0] == made[1]
    assert all(after > before for (_, before), (_, after) in zip(made[1], made[2], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no compiler", "a compiler that fails"])
def test_without_a_compiler_everything_works_and_it_is_said_once(
    tmp_path: Path, tiny_model: Callable[[str], Path], how: str
) -> None:
    code = f"""
import logging; logging.basicConfig()
from pathlib import Path
from lorabench.models.base import load_base
from tests.fast.fast_cases import batches
for _ in range(2):
    base = load_base(Path({str(tiny_model("smollm2"))!r}), precision="fp32", device="cpu")
print(base.execution.kind, "|", base.execution.reason, "|", float(base.token_nll(batches(base, 1)[0]).sum()) > 0)
"""
    environment = {**os.environ, "LORABENCH_CACHE": str(tmp_path), "CXX": "/nowhere/g++"}
    if how == "a compiler that fails":
        broken = tmp_path / "g++"
        broken.write_text("#!/bin/sh\nexit 1\n")
        broken.chmod(0o755)
        environment["CXX"] = str(broken)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "fast | no C++ compiler: slower | True"
    assert done.stderr.count("slower") == 1
