from __future__ import annotations

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

from lorabench.data.packing import IGNORED
from lorabench.models.fast.attention import Segments
from lorabench.models.fast.kernels import Kernels, Norm, PlainKernels, Rotation
from lorabench.models.fast.native import kernels_for

DTYPES = (torch.float32, torch.bfloat16)
PLAIN = PlainKernels()


@pytest.fixture
def compiled() -> Kernels:
    kernels = kernels_for("cpu")
    assert kernels.name == "compiled"
    return kernels


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
    gate = torch.cat([torch.linspace(-100, 100, 4001), torch.linspace(-6, 6, 4001), torch.tensor([0.0, -0.0, 1e-30])])
    gate = gate[: len(gate) // 5 * 5].view(-1, 5).to(dtype)
    up = random(*gate.shape, dtype=dtype, seed=1) if gated else None
    d_out = random(*gate.shape, dtype=dtype, seed=2)
    assert_alike([compiled.activation(kind, gate, up)], [PLAIN.activation(kind, gate, up)], dtype)
    ours, theirs = (kernels.activation_backward(kind, gate, up, d_out) for kernels in (compiled, PLAIN))
    assert_alike(ours, theirs, dtype)
    assert torch.equal(ours[2], compiled.activation(kind, gate, up)), "made again, it is the same"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rotary", [0, 4, 8])
@pytest.mark.parametrize(("num_tokens", "block"), [(1, 128), (300, 128), (128, 128), (300, 300)])
def test_moving_heads_agrees_and_is_its_own_inverse(
    compiled: Kernels, dtype: torch.dtype, rotary: int, num_tokens: int, block: int
) -> None:
    source = random(num_tokens, 3, 2, 8, dtype=dtype)[:, :, 1]
    angles = random(num_tokens, rotary // 2, seed=1)
    rotation = Rotation(angles.cos(), angles.sin()) if rotary else None
    blocks = [kernels.gather_heads(source, block, rotation) for kernels in (compiled, PLAIN)]
    assert_alike(blocks[:1], blocks[1:], dtype)
    for kernels, laid_out in zip((compiled, PLAIN), blocks, strict=True):
        target = torch.full_like(source, 7.0)
        kernels.scatter_heads(laid_out, target, block, rotation)
        assert_alike([target], [source], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lengths", [[300], [1, 1, 1], [100, 150, 7, 260], [128, 128, 1]], ids=str)
def test_softmax_sees_its_own_document_only(compiled: Kernels, dtype: torch.dtype, lengths: list[int]) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    own = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    for block in Segments.of(starts, None).blocks:
        queries, keys = block.end - block.start, block.end - block.first_key
        scores, gradients = (random(2, 3 * queries, keys, dtype=dtype, seed=seed, size=4.0) for seed in (1, 2))
        results = []
        for kernels in (compiled, PLAIN):
            probabilities = scores.clone()
            sums = kernels.softmax_(probabilities, queries, block.start - block.first_key, block.lows, 0.3)
            again, slopes = scores.clone(), gradients.clone()
            kernels.softmax_backward_(again, slopes, queries, block.start - block.first_key, block.lows, 0.3, sums)
            results.append((probabilities, sums, again, slopes))
        assert_alike(*results, dtype)
        query, key = torch.arange(block.start, block.end), torch.arange(block.first_key, block.end)
        allowed = (own[query][:, None] == own[key][None]) & (query[:, None] >= key[None])
        outside = results[0][0].view(2, 3, queries, keys)[:, :, ~allowed]
        assert torch.equal(outside, torch.zeros_like(outside))
        assert torch.allclose(results[0][0].float().sum(-1), torch.ones(2, 3 * queries), atol=2e-2)


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


def test_the_library_is_compiled_once_and_kept(tmp_path: Path) -> None:
    code = "from lorabench.models.fast.native import kernels_for; print(kernels_for('cpu').name)"
    environment = {**os.environ, "LORABENCH_CACHE": str(tmp_path)}
    made: list[list[tuple[str, int]]] = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "compiled"
        assert done.stderr == ""
        made.append([(path.name, path.stat().st_mtime_ns) for path in (tmp_path / "kernels").iterdir()])
    assert len(made[0]) == 1
    assert made[0] == made[1]


@pytest.mark.parametrize("how", ["no compiler", "a compiler that fails"])
def test_without_a_compiler_everything_works_and_it_is_said_once(
    tmp_path: Path, tiny_model: Callable[[str], Path], how: str
) -> None:
    code = f"""
import logging; logging.basicConfig()
from pathlib import Path
from lorabench.models.base import load_base
from tests.models.fast_cases import batches
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
