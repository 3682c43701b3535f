"""Passes around the products as single kernels: torch's own operations, put together by torch.compile.

They are compiled for any number of tokens at once, and again for another width, type or kind of norm alone.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lorabench.fast.attention import Rotation, rotate
from lorabench.fast.kernels import PlainKernels

_LOG = logging.getLogger("lorabench")
MAX_VARIANTS = 256
"""Of a pass in one process, over models, types and methods; torch would refuse the ninth."""


def cross_entropy_(logits: Tensor, targets: Tensor, gradient: bool) -> Tensor:
    """As `Kernels.cross_entropy_`, without an index into the logits for the gradient."""
    wide = logits.float()
    largest = wide.amax(-1, keepdim=True)
    powers = (wide - largest).exp()
    total = powers.sum(-1, keepdim=True)
    losses = total.log() + largest - wide.gather(1, targets[:, None])
    if gradient:
        columns = torch.arange(logits.shape[1], device=logits.device)
        logits.copy_(powers / total - (columns == targets[:, None]).float())
    return losses[:, 0]


def rotate_both(query: Tensor, key: Tensor, cosine: Tensor, sine: Tensor, *, back: bool) -> tuple[Tensor, Tensor]:
    """Queries and keys [T, heads, width] turned by the rotation, or back: what the gradient needs."""
    rotation = Rotation(cosine, -sine if back else sine)
    return rotate(query, rotation), rotate(key, rotation)


_PLAIN = PlainKernels()
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add_norm": _PLAIN.add_norm,
    "add_norm_backward": _PLAIN.add_norm_backward,
    "activation": _PLAIN.activation,
    "activation_backward_": _PLAIN.activation_backward_,
    "cross_entropy_": cross_entropy_,
    "rotate": rotate_both,
}


@dataclass
class Passes:
    """How the passes run: each function of `FUNCTIONS` by its name."""

    functions: dict[str, Callable[..., Any]] = field(default_factory=lambda: dict(FUNCTIONS))
    name: str = "torch"
    reason: str = ""
    compile_seconds: float = 0.0
    num_compiled: int = 0
    """Graphs that were compiled."""

    def run(self, name: str, *values: Any, **options: Any) -> Any:
        """The pass of that name."""
        return self.functions[name](*values, **options)


@dataclass
class CompiledPasses(Passes):
    """Compiled when they are first needed; what that took is added up."""

    name: str = "compiled"

    def __post_init__(self) -> None:
        warnings.filterwarnings("ignore", message=r"\s*Online softmax is disabled")  # advice for torch's authors
        torch._dynamo.config.recompile_limit = MAX_VARIANTS
        torch._dynamo.config.accumulated_recompile_limit = MAX_VARIANTS * len(FUNCTIONS)
        torch.fx.experimental._config.use_duck_shape = False  # T may be as large as a width
        self.functions = {
            name: torch.compile(function, dynamic=True, fullgraph=True) for name, function in FUNCTIONS.items()
        }

    def run(self, name: str, *values: Any, **options: Any) -> Any:
        started, before = time.perf_counter(), _num_graphs()
        with torch.no_grad():
            result = self.functions[name](*values, **options)
        if (now := _num_graphs()) > before:
            self.num_compiled += now - before
            self.compile_seconds += time.perf_counter() - started
        return result


def compile_for(device: str) -> Passes:
    """Compiled passes, after one of them compiled on the device; where it does not, torch's own, said once."""
    passes = CompiledPasses()
    few = torch.ones(2, 8, device=device)
    try:
        passes.run("activation", "silu", few, few)
    except Exception as error:  # whatever the compiler, its C compiler or the driver say
        message = " ".join(str(error).split())[:200] or type(error).__name__
        _LOG.warning("torch.compile does not work here (%s): everything works, training is slower.", message)
        return Passes(reason="torch.compile does not work here: slower")
    return passes


def _num_graphs() -> int:
    counted: int = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return counted


_LIBRARY = torch.library.Library("lorabench", "DEF")
_LIBRARY.define("fused(str name, Tensor[] inputs) -> Tensor[]")
_pending: list[Callable[[], Any]] = []


def _fused(name: str, inputs: list[Tensor]) -> list[Tensor]:
    result = _pending[-1]()
    return [part for part in (result if isinstance(result, tuple) else (result,)) if part is not None]


_LIBRARY.impl("fused", _fused, "Meta")


@dataclass
class _Counted(Passes):
    name: str = "counted"

    def run(self, name: str, *values: Any, **options: Any) -> Any:
        flat = [value for value in values if isinstance(value, Tensor)]
        results: list[Any] = []

        def compute() -> Any:
            results.append(self.functions[name](*values, **options))
            return results[-1]

        _pending.append(compute)
        try:
            outputs = iter(torch.ops.lorabench.fused(name, flat))
        finally:
            _pending.pop()
        if not isinstance(results[0], tuple):
            return next(outputs)
        return tuple(None if part is None else next(outputs) for part in results[0])


def count_as_one() -> Passes:
    """On meta tensors each pass is one operation, `lorabench::fused`, so that counting operations counts launches."""
    return _Counted()
