"""What inductor generates for a card, counted: its own Triton code for the passes at real sizes, which needs no card.

The code is written and not run: inductor is asked for Triton's code on the processor and stopped before it loads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor import config
from torch._inductor.graph import GraphLowering

from lorabench.fast.gpu.passes import FUNCTIONS
from lorabench.fast.kernels import Norm
from tests.fast.launches import kernels_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),  # inductor itself calls it
]
TOKENS, WIDTH, HALF = 16_384, 2048, torch.bfloat16


class Generated(BaseException):
    """Carries the code past the compiler, which would make an error of its own out of any other exception."""


def generated_kernels(function: Callable[..., Any], *values: Any, **options: Any) -> int:
    """Kernels that one call launches, of Triton and of torch itself."""

    def stop(graph: Any) -> None:
        code = graph.codegen()[0]
        raise Generated(getattr(code, "value", code))

    torch._dynamo.reset()
    with pytest.MonkeyPatch.context() as patch, config.patch(cpu_backend="triton", fx_graph_cache=False):
        patch.setattr("torch.utils._triton.triton_hash_with_backend", lambda: "none")
        patch.setattr(GraphLowering, "compile_to_module", stop)
        with pytest.raises(Generated) as generated, torch.no_grad():
            torch.compile(function, dynamic=True, fullgraph=True)(*values, **options)
    call = generated.value.args[0].split("def call(")[1]
    return len(re.findall(r"\.run\(|= extern_kernels\.|aten\.[a-z_.]+\(", call))


def empty(*sizes: int, dtype: torch.dtype = HALF) -> Tensor:
    """Never written to, so that it takes no memory."""
    return torch.empty(sizes, dtype=dtype)


def norm(*, centred: bool) -> Norm:
    weight = empty(WIDTH, dtype=torch.float32)
    torch._dynamo.mark_static(weight, 0)
    return Norm(weight, empty(WIDTH, dtype=torch.float32) if centred else None, 1e-5, centred)


def wide() -> Tensor:
    return empty(TOKENS, WIDTH, dtype=torch.float32)


def row() -> Tensor:
    return empty(TOKENS, 1, dtype=torch.float32)


def turned(half: int) -> tuple[Tensor, ...]:
    angles = empty(TOKENS, half, dtype=torch.float32)
    return empty(TOKENS, 8, 64), empty(TOKENS, 2, 64), angles, angles.clone()


CASES: dict[str, tuple[str, Callable[[], tuple[Any, ...]], dict[str, Any]]] = {
    "LayerNorm": ("add_norm", lambda: (wide(), empty(TOKENS, WIDTH), norm(centred=True), HALF), {}),
    "RMSNorm": ("add_norm", lambda: (wide(), empty(TOKENS, WIDTH), norm(centred=False), HALF), {}),
    "LayerNorm's gradient": (
        "add_norm_backward",
        lambda: (wide(), empty(TOKENS, WIDTH), wide(), row(), row(), norm(centred=True)),
        {},
    ),
    "RMSNorm's gradient": (
        "add_norm_backward",
        lambda: (wide(), empty(TOKENS, WIDTH), wide(), None, row(), norm(centred=False)),
        {},
    ),
    "activation": ("activation", lambda: ("gelu_tanh", empty(TOKENS, WIDTH), empty(TOKENS, WIDTH)), {}),
    "activation's gradient": (
        "activation_backward_",
        lambda: ("silu", empty(TOKENS, WIDTH), empty(TOKENS, WIDTH), empty(TOKENS, WIDTH)),
        {},
    ),
    "cross-entropy": (
        "cross_entropy_",
        lambda: (empty(8192, 50_304)[:, :50_257], torch.zeros(8192, dtype=torch.int64), True),
        {},
    ),
    "rotary": ("rotate", lambda: turned(32), {"back": False}),
    "rotary of a part": ("rotate", lambda: turned(8), {"back": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_pass_launches_what_it_is_counted_as(case: str) -> None:
    name, make, options = CASES[case]
    values = make()
    tensors = [value for value in values if isinstance(value, Tensor)]
    assert generated_kernels(FUNCTIONS[name], *values, **options) == kernels_of(name, tensors)


def test_a_count_is_the_generated_codes_own() -> None:
    """Two sums, of which one needs the other's result across all rows, are no single kernel."""
    values = torch.empty(4096, 512)
    assert generated_kernels(lambda x: (x.sum(0), x.sum(1)), values) > 1
    assert generated_kernels(lambda x: x + 1.0, values) == 1
