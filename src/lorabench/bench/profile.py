"""Where a training step's time goes: torch's profiler, its operations put together under names that mean something."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from lorabench.bench.request import Point
from lorabench.bench.subject import Subject
from lorabench.experiment.schema import TrainingSettings
from lorabench.fast.choice import kernels_for
from lorabench.fast.kernels import Product
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import DTYPES, FrozenBase
from lorabench.tokens.packing import document_segments, make_batch
from lorabench.training.optimization import clip_gradients, make_optimizer

PRODUCTS = "matrix products"
_PARTS = {
    PRODUCTS: PRODUCTS,
    "aten::mm": PRODUCTS,
    "aten::addmm": PRODUCTS,
    "aten::addmm_": PRODUCTS,
    "_Attention": "attention",
    "_AttentionBackward": "attention",
    "NormLinear": "norms and residuals",
    "NormLinearBackward": "norms and residuals",
    "NormOnly": "norms and residuals",
    "NormOnlyBackward": "norms and residuals",
    "ActivationLinear": "activations",
    "ActivationLinearBackward": "activations",
    "_HeadLoss": "cross-entropy",
    "aten::_fused_adamw_": "optimizer",
}
"""Operation (its own time, what it calls apart) -> part. What has no name here is `everything else`."""
OTHER = "everything else"
IDLE = "nothing: the GPU waits"
_KERNELS = {
    "attention": r"flash|fmha|varlen",
    PRODUCTS: r"gemm|cutlass|nvjet|xmma|cublas|splitk",
    "compiled passes": r"triton",
    "optimizer": r"multi_tensor|adam",
    "copies": r"memcpy|memset|copy",
}
"""Part -> what the names of its kernels on an NVIDIA GPU hold; the first that fits."""


@dataclass(frozen=True)
class Part:
    """One part of a step."""

    name: str
    seconds: float
    num_calls: int


def profile_step(subject: Subject, point: Point) -> list[Part]:
    """The parts of one training step after a warm-up, the longest first. Profiling itself costs some percent."""
    base = subject.base
    adapter = attach(base, AdapterSettings(rank=point.rank), seed=0)
    try:
        step = _make_step(subject, adapter, point)
        step()
        is_gpu = base.device.type == "cuda"
        activities = [ProfilerActivity.CUDA] if is_gpu else [ProfilerActivity.CPU]
        with profile(activities=activities) as profiler, _visible_products(base):
            started = time.perf_counter()
            step()
            took = time.perf_counter() - started
    finally:
        adapter.detach()
    spent = [
        (
            part_of_kernel(event.key) if is_gpu else _PARTS.get(event.key, OTHER),
            (event.self_device_time_total if is_gpu else event.self_cpu_time_total) / 1e6,
            event.count,
        )
        for event in profiler.key_averages()
    ]
    return _together(spent, took, IDLE if is_gpu else OTHER)


def part_of_kernel(name: str) -> str:
    """The part that a kernel on a GPU belongs to; its own name where it is none that we know."""
    for part, pattern in _KERNELS.items():
        if re.search(pattern, name, re.IGNORECASE):
            return part
    return re.split(r"[<(]", name.removeprefix("void "), maxsplit=1)[0].strip()[:60] or OTHER


def _together(spent: Sequence[tuple[str, float, int]], took: float, rest: str) -> list[Part]:
    """Name, seconds and calls of each operation, put together by name, and what is left of the step's seconds."""
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for name, of_it, count in spent:
        if of_it > 0.0 or name in _PARTS.values() or name == OTHER:
            seconds[name] += of_it
            calls[name] += count
    seconds[rest] += max(0.0, took - sum(seconds.values()))
    parts = [Part(name, seconds[name], calls[name]) for name in seconds]
    return sorted(parts, key=lambda part: -part.seconds)


@contextmanager
def _visible_products(base: FrozenBase) -> Iterator[None]:
    """The profiler sees torch's operations alone; compiled products get a name in it."""
    kernels = kernels_for(base.device.type, DTYPES[base.precision])
    multiply = kernels.multiply

    def named(products: Sequence[Product]) -> list[Tensor]:
        with record_function(PRODUCTS):
            return multiply(products)

    setattr(kernels, "multiply", named)  # noqa: B010
    try:
        yield
    finally:
        delattr(kernels, "multiply")


def _make_step(subject: Subject, adapter: Adapter, point: Point) -> Callable[[], None]:
    base, length = subject.base, point.context_length
    num_rows = subject.device.micro_batch(point.batch_size, length)
    text = subject.training_text(num_rows, length)
    rows = [
        list(document_segments(index, ids, prefix=text.prefix, context_length=length))
        for index, ids in enumerate(text.tokens)
    ]
    parameters = adapter.parameters
    optimizer = make_optimizer(adapter, TrainingSettings())

    def step() -> None:
        batch = make_batch(rows)
        torch.autograd.backward(base.loss(batch) / batch.num_scored)
        clip_gradients(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        base.synchronize()

    return step
