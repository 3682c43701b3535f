"""Memory that runs out in a thread of the compiled kernels is an error that Python sees, not the end of the process."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from lorabench.fast.choice import kernels_for
from tests.fast.test_kernels import NO_PRODUCTS
from tests.marks import slow

CODE = """
import resource, sys
import numpy as np
import torch
from lorabench.core.out_of_memory import is_out_of_memory
from lorabench.fast.attention import Heads, Segments
from lorabench.fast.kernels import Product
from lorabench.fast.choice import kernels_for
from lorabench.fast.cpu.native import _AttentionCall

what, dtype, threads = sys.argv[1], getattr(torch, sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
kernels = kernels_for("cpu")

def attention(length):
    segments = Segments(np.array([0, length], dtype=np.int32), None)
    parts = tuple(torch.randn(length, 128).to(dtype) for _ in range(3))
    output, log_sums = torch.randn(length, 128).to(dtype), torch.zeros(2, length)
    call = _AttentionCall.of(parts, Heads(2, 2, 64, 0.125, "separate"), segments, output, log_sums)
    return lambda: kernels.attention(what == "backward", call, dtype), (parts, segments, output, log_sums)

def products(length):
    left, right = torch.randn(length, 64).to(dtype).t(), torch.randn(length, 32).to(dtype)
    out, bias = torch.empty(64, 32, dtype=dtype), torch.zeros(32, dtype=dtype)
    product = Product(((left, right),), out=out, bias=bias)
    return lambda: kernels.multiply([product]), product

make = products if what == "products" else attention
small, kept = make(40)
small()  # starts the threads
large, also_kept = make(1_000_000 if what == "products" else 200_000)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
_, most = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), most))
try:
    large()
except MemoryError as error:
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    small()
    print("recognised", is_out_of_memory(error), error)
"""


@pytest.mark.parametrize("threads", [slow(1), 2])
@pytest.mark.parametrize(
    ("what", "dtype"),
    [*itertools.product(["forward", "backward"], ["float32", "bfloat16"]), ("products", "bfloat16")],
)
def test_memory_runs_out_in_a_thread(what: str, dtype: str, threads: int) -> None:
    kernels = kernels_for("cpu")
    assert kernels.name == "compiled"
    if what == "products" and getattr(kernels, "_products", None) is None:
        pytest.skip(NO_PRODUCTS)
    command = [sys.executable, "-c", CODE, what, dtype, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert done.stdout.startswith("recognised True a thread of the compiled kernels"), done
