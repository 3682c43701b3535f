"""Compiles `kernels.cpp` for this processor once, keeps the library in the cache, and calls it on torch's tensors."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lorabench.cache import cache_root, write_atomically
from lorabench.errors import DiskError
from lorabench.machine import processor_name
from lorabench.models.fast.kernels import ActivationKind, Kernels, Norm, PlainKernels, Rotation

_LOG = logging.getLogger("lorabench")
_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)
_SUFFIX = {torch.float32: "fp32", torch.bfloat16: "bf16"}
_ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "gelu_erf": 2}
_LONG, _INT, _FLOAT, _POINTER = ctypes.c_int64, ctypes.c_int, ctypes.c_float, ctypes.c_void_p
_SIGNATURES: dict[str, list[type]] = {
    "add_norm": [_LONG, _LONG, *[_POINTER] * 4, _FLOAT, *[_POINTER] * 4],
    "add_norm_backward": [_LONG, _LONG, *[_POINTER] * 8],
    "activation": [_INT, _LONG, *[_POINTER] * 3],
    "activation_backward": [_INT, _LONG, *[_POINTER] * 6],
    "gather_heads": [*[_LONG] * 4, _POINTER, _LONG, _LONG, _POINTER, _LONG, _POINTER, _POINTER, _FLOAT],
    "scatter_heads": [*[_LONG] * 4, _POINTER, _LONG, _LONG, _POINTER, _LONG, _POINTER, _POINTER, _FLOAT],
    "softmax": [*[_LONG] * 4, _POINTER, _FLOAT, _POINTER, _POINTER],
    "softmax_backward": [*[_LONG] * 4, _POINTER, _FLOAT, *[_POINTER] * 3],
    "cross_entropy": [_LONG, _LONG, _POINTER, _POINTER, ctypes.c_int32, _POINTER],
}


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class NativeKernels:
    """The passes of `kernels.cpp`. Tensors are on the processor and contiguous unless said otherwise."""

    name = "compiled"

    def __init__(self, library: Path, compile_seconds: float) -> None:
        self.compile_seconds = compile_seconds
        loaded = ctypes.CDLL(str(library))
        self._functions = {}
        for name, arguments in _SIGNATURES.items():
            for dtype, suffix in _SUFFIX.items():
                function = getattr(loaded, f"{name}_{suffix}")
                function.argtypes, function.restype = arguments, None
                self._functions[name, dtype] = function

    def add_norm(
        self, residual: Tensor, delta: Tensor | None, norm: Norm, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        rows, width = residual.shape
        residual = residual.contiguous()
        delta = None if delta is None else delta.contiguous()
        total = residual if delta is None else torch.empty_like(residual)
        normed = torch.empty(rows, width, dtype=dtype)
        mean = torch.empty(rows) if norm.centred else None
        scale = torch.empty(rows)
        self._functions["add_norm", dtype](
            rows, width, _at(residual), _at(delta), _at(norm.weight), _at(norm.bias), norm.epsilon,
            _at(total), _at(normed), _at(mean), _at(scale),
        )  # fmt: skip
        return total, normed, mean, scale

    def add_norm_backward(
        self, d_total: Tensor | None, d_normed: Tensor, total: Tensor, mean: Tensor | None, scale: Tensor, norm: Norm
    ) -> tuple[Tensor, Tensor]:
        rows, width = total.shape
        d_normed = d_normed.contiguous()
        d_total = None if d_total is None else d_total.contiguous()
        d_residual = torch.empty_like(total)
        narrow = None if d_normed.dtype == torch.float32 else torch.empty_like(d_normed)
        self._functions["add_norm_backward", d_normed.dtype](
            rows, width, _at(d_total), _at(d_normed), _at(total), _at(mean), _at(scale), _at(norm.weight),
            _at(d_residual), _at(narrow),
        )  # fmt: skip
        return d_residual, d_residual if narrow is None else narrow

    def activation(self, kind: ActivationKind, gate: Tensor, up: Tensor | None) -> Tensor:
        out = torch.empty_like(gate)
        function = self._functions["activation", gate.dtype]
        function(_ACTIVATIONS[kind], gate.numel(), _at(gate), _at(up), _at(out))
        return out

    def activation_backward(
        self, kind: ActivationKind, gate: Tensor, up: Tensor | None, d_out: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        d_out = d_out.contiguous()
        d_gate, d_up = torch.empty_like(gate), None if up is None else torch.empty_like(up)
        out = torch.empty_like(gate)
        function = self._functions["activation_backward", gate.dtype]
        function(_ACTIVATIONS[kind], gate.numel(), _at(gate), _at(up), _at(d_out), _at(d_gate), _at(d_up), _at(out))
        return d_gate, d_up, out

    def gather_heads(self, source: Tensor, block: int, rotation: Rotation | None) -> Tensor:
        blocks = torch.empty(source.numel(), dtype=source.dtype)
        self._move("gather_heads", source, blocks, block, rotation, 1.0)
        return blocks

    def scatter_heads(self, blocks: Tensor, target: Tensor, block: int, rotation: Rotation | None) -> None:
        self._move("scatter_heads", target, blocks.contiguous(), block, rotation, -1.0)

    def _move(
        self, name: str, by_token: Tensor, by_head: Tensor, block: int, rotation: Rotation | None, sign: float
    ) -> None:
        num_tokens, heads, width = by_token.shape
        cosine, sine = (None, None) if rotation is None else (rotation.cosine, rotation.sine)
        rotary = 0 if cosine is None else 2 * cosine.shape[1]
        self._functions[name, by_token.dtype](
            num_tokens, heads, width, block, _at(by_token), by_token.stride(0), by_token.stride(1), _at(by_head),
            rotary, _at(cosine), _at(sine), sign,
        )  # fmt: skip

    def softmax_(self, scores: Tensor, queries: int, offset: int, lows: Tensor, factor: float) -> Tensor:
        rows, keys = scores.shape[0] * scores.shape[1], scores.shape[2]
        sums = torch.empty(rows)
        self._functions["softmax", scores.dtype](rows, queries, keys, offset, _at(lows), factor, _at(scores), _at(sums))
        return sums

    def softmax_backward_(
        self, scores: Tensor, gradients: Tensor, queries: int, offset: int, lows: Tensor, factor: float, sums: Tensor
    ) -> None:
        rows, keys = scores.shape[0] * scores.shape[1], scores.shape[2]
        self._functions["softmax_backward", scores.dtype](
            rows, queries, keys, offset, _at(lows), factor, _at(scores), _at(gradients), _at(sums)
        )

    def cross_entropy_(self, logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
        losses = torch.empty(len(targets))
        self._functions["cross_entropy", logits.dtype](
            *logits.shape, _at(logits), _at(targets), int(gradient), _at(losses)
        )
        return losses


@cache
def kernels_for(device_type: str) -> Kernels:
    """The fastest passes this machine can have; without a C++ compiler plain torch's, said once."""
    if device_type != "cpu":
        return PlainKernels()
    try:
        return NativeKernels(*_build())
    except (OSError, subprocess.SubprocessError, DiskError) as error:
        message = " ".join(str(error).split())[:200]
        _LOG.warning("No compiled kernels on this machine (%s): everything works, training is slower.", message)
        return PlainKernels()


def _build() -> tuple[Path, float]:
    """The library, and the seconds that compiling it took now: 0 where it is kept from before."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        raise FileNotFoundError("there is no g++")
    compiler = Path(found).resolve()
    state = f"{compiler}|{compiler.stat().st_size}|{compiler.stat().st_mtime_ns}"
    identity = "\n".join([_SOURCE.read_text(encoding="utf-8"), *_FLAGS, state, processor_name(), _flags_of_this_cpu()])
    library = cache_root() / "kernels" / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.so"
    if library.is_file():
        return library, 0.0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "kernels.so"
        subprocess.run([found, *_FLAGS, str(_SOURCE), "-o", str(built)], capture_output=True, timeout=300, check=True)
        write_atomically(library, built.read_bytes())
    seconds = time.perf_counter() - started
    _LOG.info("Compiled the kernels for this processor in %.1f s; they are kept in %s", seconds, library.parent)
    return library, seconds


def _flags_of_this_cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
