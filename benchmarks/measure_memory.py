"""What lorabench plan expects of memory, against what training takes: each configuration in a process of its own.

python benchmarks/measure_memory.py [--only NUMBER ...] [--device cuda]

Weights are random at the real size. One micro-batch is trained with AdamW, two of `full`; what is measured is what a
record has as `speed.peak_memory_bytes`. On a GPU the libraries themselves are no part of that, nor of the estimate.
"""

from __future__ import annotations

import argparse
import multiprocessing
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
import transformers

from lorabench.bench.subject import load_subject
from lorabench.core.device import choose_device, peak_memory, reset_peak_memory
from lorabench.core.machine import prepare_process
from lorabench.experiment.estimates import PROCESS_BYTES, Workload, estimate_memory
from lorabench.experiment.schema import TrainingSettings
from lorabench.methods.attach import attach
from lorabench.methods.registry import METHODS, method_of
from lorabench.models.base import PRECISIONS
from lorabench.tokens.packing import make_batch
from lorabench.training.optimization import make_optimizer


@dataclass(frozen=True)
class Case:
    """One configuration; `tokens` are context length and rows at once."""

    model: str
    precision: str
    tokens: tuple[int, int]
    adapter: dict[str, Any] = field(default_factory=dict)
    checkpointing: bool = False


CASES = (
    Case("smollm2-135m", "bf16", (512, 4)),
    Case("smollm2-135m", "bf16", (512, 4), checkpointing=True),
    Case("smollm2-135m", "fp32", (512, 4)),
    Case("smollm2-135m", "fp32", (512, 4), checkpointing=True),
    Case("smollm2-135m", "bf16", (512, 4), {"dropout": 0.1}),
    Case("smollm2-135m", "bf16", (512, 4), {"method": "dora"}),
    Case("smollm2-135m", "bf16", (512, 4), {"method": "dora", "dropout": 0.1}),
    Case("smollm2-135m", "bf16", (512, 4), {"method": "dora", "dropout": 0.1}, checkpointing=True),
    Case("smollm2-135m", "bf16", (512, 4), {"method": "full"}),
    Case("smollm2-135m", "bf16", (512, 4), {"method": "ia3"}),
    Case("gpt2", "bf16", (1024, 4)),
    Case("gpt2", "bf16", (1024, 4), checkpointing=True),
    Case("pythia-410m", "bf16", (1024, 2)),
    Case("pythia-410m", "bf16", (1024, 2), checkpointing=True),
)


def measure(case: Case, device_name: str | None) -> tuple[int, int]:
    """Expected and measured peak bytes, in this process."""
    prepare_process()
    device = choose_device(device_name)
    subject = load_subject(case.model, precision=PRECISIONS[case.precision], random_weights=True, device=device)
    context_length, rows = case.tokens
    settings = METHODS.get(case.adapter.get("method", "lora")).settings(**case.adapter)
    targets = tuple(method_of(settings).resolve_targets(subject.shape, settings))
    workload = Workload(
        context_length=context_length,
        precision=case.precision,
        evaluation_tokens=0,
        train_tokens=context_length * rows,
        adapter=settings,
        target_modules=targets,
        rows_at_once=rows,
        checkpointing=case.checkpointing,
    )
    expected = estimate_memory(subject.shape, workload) - (PROCESS_BYTES if device.is_gpu else 0)
    base = subject.base
    adapter = attach(base, settings, seed=0)
    base.checkpointing = case.checkpointing
    optimizer = make_optimizer(adapter, TrainingSettings(precision="fp32"))
    batch = make_batch(subject.training_text(rows, context_length).rows(context_length, 0, 0))
    reset_peak_memory(base.device)
    for _ in range(1 + (settings.method == "full")):  # the optimizer's state is there from the second step on
        torch.autograd.backward(base.loss(base.send(batch), list(range(rows))))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return expected, peak_memory(base.device)


def main() -> None:
    """A row for each configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", help="configurations by their number, from 1")
    parser.add_argument("--device")
    arguments = parser.parse_args()
    processes = multiprocessing.get_context("fork")  # the libraries are imported once
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}\n")
    print("| model | adapter | precision | context × rows | checkpointing | expected | measured | ratio |")
    print("| --- | --- | --- | --- | --- | ---: | ---: | ---: |")
    for number in arguments.only or range(1, len(CASES) + 1):
        case = CASES[number - 1]
        with processes.Pool(1) as pool:
            expected, measured = pool.apply(measure, (case, arguments.device))
        adapter = ", ".join(str(value) for value in ({"method": "lora"} | case.adapter).values())
        shape, again = f"{case.tokens[0]} × {case.tokens[1]}", "yes" if case.checkpointing else ""
        gigabytes = f"{expected / 1e9:.2f} GB | {measured / 1e9:.2f} GB"
        print(f"| {case.model} | {adapter} | {case.precision} | {shape} | {again} | {gigabytes} | "
              f"{expected / measured:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
