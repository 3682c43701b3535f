"""What one pass over a base costs with the rows of N runs, a token: against N passes with one run each.

    OMP_NUM_THREADS=1 python benchmarks/measure_side_by_side.py --model smollm2-135m-instruct --context 128

Forward and backward of batches of one row, each run with LoRA on all linear layers. Forms take turns, so that what else
the machine does meets all of them; processor seconds are counted, and the median of the rounds is shown. The optimizer
is left out: each run has its own, side by side or alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from lorabench.core.machine import prepare_process
from lorabench.fast.together import SharedPass
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import PRECISIONS, FrozenBase, load_base
from lorabench.models.locate import locate_model
from lorabench.tokens.packing import PackedBatch, make_batch, stream_rows


def row_of(base: FrozenBase, context: int, seed: int) -> PackedBatch:
    """One row of one document of random tokens."""
    tokens = np.random.default_rng(seed).integers(0, base.vocabulary_size, context).astype(np.int32)
    return make_batch(list(stream_rows([tokens], [0], prefix=0, context_length=context)))


def seconds_of(step: Callable[[], None]) -> float:
    """Processor seconds of all threads."""
    started = time.process_time()
    step()
    return time.process_time() - started


def step_of(bases: list[FrozenBase], adapters: list[Adapter], rows: list[PackedBatch]) -> Callable[[], None]:
    """Forward and backward of all runs at once; of one as it is alone."""
    scored = torch.tensor([float(row.num_scored) for row in rows])
    shared = None
    if len(bases) > 1:
        shared = SharedPass([base.decoder for base in bases if base.decoder is not None])

    def step() -> None:
        nats = bases[0].loss(rows[0])[None] if shared is None else shared.losses(rows)
        torch.autograd.backward(nats, 1.0 / scored)
        for adapter in adapters:
            for parameter in adapter.parameters:
                parameter.grad = None

    return step


def main() -> None:
    """Measure, and show the counts after each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--precision", choices=list(PRECISIONS), default="bf16")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    prepare_process()
    base = load_base(locate_model(chosen.model).folder, precision=PRECISIONS[chosen.precision], device="cpu")
    bases = [base.twin() for _ in range(max(chosen.counts))]
    adapters = [attach(twin, AdapterSettings(rank=chosen.rank), seed=run) for run, twin in enumerate(bases)]
    rows = [row_of(base, chosen.context, run) for run in range(len(bases))]
    steps = {count: step_of(bases[:count], adapters[:count], rows[:count]) for count in chosen.counts}
    seconds: dict[int, list[float]] = {count: [] for count in steps}
    for number in range(chosen.rounds + 1):  # the first warms up
        for count, step in steps.items():
            taken = seconds_of(step) / (count * chosen.context)
            if number:
                seconds[count].append(taken)
        print(f"round {number} of {chosen.rounds}", flush=True)
        show(seconds, f"{chosen.context} {chosen.precision}")


def show(seconds: dict[int, list[float]], what: str) -> None:
    """One line for each count of runs, of the rounds so far: seconds a token, and their share of the first count's."""
    alone = seconds[min(seconds)]
    for count, found in seconds.items():
        if found:
            ratios = [own / first for own, first in zip(found, alone, strict=True)]
            print(
                f"{count} x {what}: {statistics.median(found) * 1e3:.3f} ms a token, "
                f"{statistics.median(ratios):.3f} of alone ({min(ratios):.3f} to {max(ratios):.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
