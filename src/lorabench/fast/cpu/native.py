"""Compiles the C++ kernels for this processor once, keeps the library in the cache, and calls it on torch's tensors."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from lorabench.core.errors import DiskError
from lorabench.core.machine import processor_name
from lorabench.core.storage import cache_root, sha256_file, write_atomically
from lorabench.fast.attention import Heads, Segments
from lorabench.fast.differentiable import apply
from lorabench.fast.kernels import ActivationKind, Kernels, Norm, PlainKernels, Product

_LOG = logging.getLogger("lorabench")
_SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("kernels.cpp", "attention.cpp", "products.cpp", "numbers.hpp")
)
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    "-fno-thread-jumps",  # it takes a bound of an exponential apart, which then costs six times as much
    *(("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()),
)
_LIBRARIES = ("-lstdc++",)
"""Named, since a C compiler that was chosen through CXX does not add it by itself."""
_SUFFIX = {torch.float32: "fp32", torch.bfloat16: "bf16"}
_ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "gelu_erf": 2}
_LONG, _INT, _FLOAT, _POINTER = ctypes.c_int64, ctypes.c_int, ctypes.c_float, ctypes.c_void_p
_SIGNATURES: dict[str, list[type]] = {
    "add_norm": [_LONG, _LONG, *[_POINTER] * 4, _FLOAT, *[_POINTER] * 4],
    "add_norm_backward": [_LONG, _LONG, *[_POINTER] * 10],
    "activation": [_INT, _LONG, *[_POINTER] * 3],
    "activation_backward": [_INT, _LONG, *[_POINTER] * 3],
    "cross_entropy": [*[_LONG] * 3, _POINTER, _POINTER, ctypes.c_int32, _POINTER],
    "attention": [_POINTER],
    "attention_backward": [_POINTER],
}
_MAY_RUN_OUT = ("attention", "attention_backward")
"""They need memory of their own, and return 1 where there is none."""


def _readable(factor: Tensor) -> Tensor:
    """Rows or columns of a factor must be contiguous."""
    return factor if 1 in factor.stride() else factor.contiguous()


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check_memory(ran_out: int) -> None:
    if ran_out:
        raise MemoryError("a thread of the compiled kernels could not get the memory it needs")


class NativeKernels:
    """The passes of the C++ files beside this one. Tensors are on the processor, and contiguous unless said."""

    name = "compiled"
    saves_launches = False
    head_alignment = 1

    def __init__(self, library: Path, compile_seconds: float) -> None:
        self.reason = ""
        self.compile_seconds = compile_seconds
        loaded = ctypes.CDLL(str(library))
        self._functions = {}
        for name, arguments in _SIGNATURES.items():
            for dtype, suffix in _SUFFIX.items():
                function = getattr(loaded, f"{name}_{suffix}")
                function.argtypes, function.restype = arguments, _INT if name in _MAY_RUN_OUT else None
                self._functions[name, dtype] = function
        loaded.products_available.argtypes, loaded.products_available.restype = [], _INT
        self._plain = PlainKernels()
        self._products = loaded.products if loaded.products_available() else None
        if self._products is not None:
            self._products.argtypes, self._products.restype = [_POINTER, _LONG, _POINTER], _INT

    @property
    def has_products(self) -> bool:
        """Whether bfloat16 products are our own; else torch's matrix library multiplies."""
        return self._products is not None

    def multiply(self, products: Sequence[Product]) -> list[Tensor]:
        if self._products is None or products[0].terms[0][0].dtype != torch.bfloat16:
            return self._plain.multiply(products)
        outs, held, sizes, factors = [], [], [], []
        for product in products:
            terms, out, num_columns = product.terms, product.out, product.terms[0][1].shape[1]
            if out is None:
                out = terms[0][0].new_empty(len(terms[0][0]), num_columns)
            outs.append(out)
            if len(terms) > 1:
                terms = tuple((left.contiguous(), _readable(right)) for left, right in terms)
            else:
                left, right = map(_readable, terms[0])
                if left.stride(1) != 1 and product.bias is None and len(left) > num_columns:
                    # Every panel of 32 columns reads the whole left factor: let that be the narrow one.
                    left, right, out = right.t(), left.t(), out.t()
                terms = ((left, right),)
            held.append(terms)
            sizes += [*out.shape, len(terms), _at(product.bias) or 0, out.data_ptr(), *out.stride()]
            sizes.append(int(out.dtype == torch.float32))
            for left, right in terms:
                factors += [left.shape[1], left.data_ptr(), *left.stride(), right.data_ptr(), *right.stride()]
        _check_memory(self._products((_LONG * len(sizes))(*sizes), len(products), (_LONG * len(factors))(*factors)))
        return outs

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
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, width = total.shape
        d_normed = d_normed.contiguous()
        d_total = None if d_total is None else d_total.contiguous()
        d_residual, normed = torch.empty_like(total), torch.empty_like(d_normed)
        narrow = None if d_normed.dtype == torch.float32 else torch.empty_like(d_normed)
        self._functions["add_norm_backward", d_normed.dtype](
            rows, width, _at(d_total), _at(d_normed), _at(total), _at(mean), _at(scale), _at(norm.weight),
            _at(norm.bias), _at(d_residual), _at(narrow), _at(normed),
        )  # fmt: skip
        return d_residual, d_residual if narrow is None else narrow, normed

    def activation(self, kind: ActivationKind, gate: Tensor, up: Tensor | None) -> Tensor:
        out = torch.empty_like(gate)
        function = self._functions["activation", gate.dtype]
        function(_ACTIVATIONS[kind], gate.numel(), _at(gate), _at(up), _at(out))
        return out

    def activation_backward_(
        self, kind: ActivationKind, gate: Tensor, up: Tensor | None, d_out: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        d_out = d_out.contiguous()
        function = self._functions["activation_backward", gate.dtype]
        function(_ACTIVATIONS[kind], gate.numel(), _at(gate), _at(up), _at(d_out))
        return gate, up, d_out

    def attend(self, projections: tuple[Tensor, ...], heads: Heads, segments: Segments) -> Tensor:
        output: Tensor = apply(_Attention, heads, segments, self, *projections)
        return output

    def attention(self, backward: bool, call: _AttentionCall, dtype: torch.dtype) -> None:
        """Run `attention.cpp` on what the call says."""
        _check_memory(self._functions["attention_backward" if backward else "attention", dtype](ctypes.byref(call)))

    def room_for_logits(self, hidden: Tensor, vocabulary_size: int) -> Tensor:
        return self._plain.room_for_logits(hidden, vocabulary_size)

    def cross_entropy_(self, logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
        losses = torch.empty(len(targets))
        self._functions["cross_entropy", logits.dtype](
            *logits.shape, logits.stride(0), _at(logits), _at(targets), int(gradient), _at(losses)
        )
        return losses


class _AttentionCall(ctypes.Structure):
    """`struct Attention` of `attention.cpp`."""

    _fields_ = (
        *((name, _LONG) for name in ("segments", "tokens", "query_heads", "key_heads", "width", "half")),
        *((name, _LONG) for name in ("query_token", "query_head", "key_token", "key_head")),
        *((name, _POINTER) for name in ("starts", "cosine", "sine", "query", "key", "value", "output", "log_sums")),
        *(("window", _LONG), ("factor", _FLOAT), ("cap", _FLOAT)),
    )

    @classmethod
    def of(
        cls, projections: tuple[Tensor, ...], heads: Heads, segments: Segments, output: Tensor, log_sums: Tensor
    ) -> _AttentionCall:
        """Forward with the output to be written, backward with its gradient."""
        query, key, value = heads.views(projections)
        assert key.stride() == value.stride()
        rotation = segments.rotation
        return cls(
            segments=len(segments.starts) - 1,
            tokens=len(query),
            query_heads=heads.num_query_heads,
            key_heads=heads.num_key_heads,
            width=heads.width,
            half=0 if rotation is None else rotation.cosine.shape[1],
            query_token=query.stride(0),
            query_head=query.stride(1),
            key_token=key.stride(0),
            key_head=key.stride(1),
            starts=segments.starts.ctypes.data,
            cosine=None if rotation is None else rotation.cosine.data_ptr(),
            sine=None if rotation is None else rotation.sine.data_ptr(),
            query=query.data_ptr(),
            key=key.data_ptr(),
            value=value.data_ptr(),
            output=output.data_ptr(),
            log_sums=log_sums.data_ptr(),
            window=heads.window or 0,
            factor=heads.factor,
            cap=heads.soft_cap or 0.0,
        )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Heads, segments: Segments, kernels: NativeKernels, *projections: Tensor) -> Tensor:
        projections = tuple(projection.contiguous() for projection in projections)
        num_tokens = len(projections[0])
        output = projections[0].new_empty(num_tokens, heads.num_query_heads * heads.width)
        log_sums = torch.empty(heads.num_query_heads, num_tokens)
        kernels.attention(False, _AttentionCall.of(projections, heads, segments, output, log_sums), output.dtype)
        ctx.save_for_backward(log_sums, *projections)
        ctx.heads, ctx.segments, ctx.kernels = heads, segments, kernels
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        log_sums, *projections = ctx.saved_tensors
        d_output = gradients[0].contiguous()
        call = _AttentionCall.of(tuple(projections), ctx.heads, ctx.segments, d_output, log_sums)
        increment_version(projections)  # they become their gradients
        ctx.kernels.attention(True, call, d_output.dtype)
        return None, None, None, *projections


def native_kernels() -> Kernels:
    """The compiled passes; without a C++ compiler plain torch's, said once."""
    try:
        return NativeKernels(*_build())
    except (OSError, subprocess.SubprocessError, DiskError) as error:
        message = " ".join(str(error).split())[:200]
        _LOG.warning("No compiled kernels on this machine (%s): everything works, training is slower.", message)
        return PlainKernels("no C++ compiler: slower")


def _build() -> tuple[Path, float]:
    """The library, and the seconds that compiling it took now: 0 where it is kept from before."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        raise FileNotFoundError("there is no g++")
    compiler = Path(found).resolve()
    state = f"{compiler}|{compiler.stat().st_size}|{compiler.stat().st_mtime_ns}"
    identity = "\n".join(
        [
            *(source.read_text(encoding="utf-8") for source in _SOURCES),
            *_FLAGS,
            *_LIBRARIES,
            state,
            processor_name(),
            _flags_of_this_cpu(),
        ]
    )
    library = cache_root() / "kernels" / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.so"
    digest = library.with_suffix(".sha256")
    with suppress(OSError, ValueError):
        if digest.read_text(encoding="ascii") == sha256_file(library):
            return library, 0.0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        built, sources = Path(folder) / "kernels.so", [source for source in _SOURCES if source.suffix == ".cpp"]
        objects = [built.with_name(f"{source.stem}.o") for source in sources]
        with ThreadPoolExecutor() as pool:  # a file each
            list(pool.map(partial(_compile, found, "-c"), sources, objects))
        _compile(found, "-shared", *objects, built)
        write_atomically(library, built.read_bytes())
        write_atomically(digest, sha256_file(built).encode())
    seconds = time.perf_counter() - started
    _LOG.info("Compiled the kernels for this processor in %.1f s; they are kept in %s", seconds, library.parent)
    return library, seconds


def _compile(compiler: str, how: str, *files: Path) -> None:
    """Make the last file of the others."""
    *sources, made = map(str, files)
    libraries = _LIBRARIES if how == "-shared" else ()
    command = [compiler, *_FLAGS, how, *sources, *libraries, "-o", made]
    subprocess.run(command, capture_output=True, timeout=300, check=True)


def _flags_of_this_cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
