"""What lorabench plan expects of memory, against what training takes: each configuration in a process of its own.

OMP_NUM_THREADS=1 python benchmarks/measure_memory.py [--only NUMBER ...] [--device cuda]

Weights are random, of small models, or of the catalogue's at their real size. Two micro-batches are trained, so that
the optimizer's state is there. What is measured is the peak as a record has it (`speed.peak_memory_bytes`), without
what the process held before the model was loaded; what is expected is without `PROCESS_BYTES`, which stands for that.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from lorabench.bench.subject import Subject
from lorabench.core.device import choose_device, peak_memory, reset_peak_memory
from lorabench.core.machine import prepare_process
from lorabench.experiment.memory import PROCESS_BYTES, estimate_memory
from lorabench.experiment.schema import TrainingSettings
from lorabench.experiment.workload import Workload
from lorabench.methods.attach import attach
from lorabench.methods.registry import METHODS, method_of
from lorabench.models.base import PRECISIONS, load_base
from lorabench.models.planning import plan_model
from lorabench.models.quantized import quantization_of
from lorabench.models.random_weights import load_random
from lorabench.models.shape import read_model_shape
from lorabench.tokens.packing import make_batch
from lorabench.training.optimization import make_optimizer

_SIZES = {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4, "vocab_size": 8192}
SMALL = {
    "llama": _SIZES | {"num_key_value_heads": 2, "intermediate_size": 704, "tie_word_embeddings": True},
    "gpt2": _SIZES,
    "gpt_neox": _SIZES | {"intermediate_size": 1024},
    "opt": _SIZES | {"ffn_dim": 1024, "word_embed_proj_dim": 256},
}
"""Small models by what Transformers calls their type; other names are those of the catalogue."""


@dataclass(frozen=True)
class Case:
    """One configuration; `tokens` are context length and rows at once."""

    model: str
    precision: str
    tokens: tuple[int, int]
    adapter: dict[str, Any] = field(default_factory=dict)
    quantization: str = "none"
    optimizer: str = "adamw"
    checkpointing: bool = False


SEEN = (
    Case("llama", "bf16", (512, 8)),
    Case("llama", "fp32", (512, 8)),
    Case("gpt2", "bf16", (512, 8)),
    Case("llama", "bf16", (512, 8), {"dropout": 0.1}),
    Case("llama", "bf16", (512, 8), {"rank": 128}),
    Case("llama", "bf16", (512, 8), {"method": "dora"}),
    Case("llama", "bf16", (512, 8), {"method": "dora", "dropout": 0.1}),
    Case("llama", "bf16", (512, 8), {"method": "full"}),
    Case("llama", "bf16", (512, 8), {"method": "ia3"}),
    Case("llama", "bf16", (512, 8), quantization="nf4"),
    Case("llama", "bf16", (512, 8), quantization="int8"),
)
"""What the estimate was made with."""
UNSEEN = (
    Case("gpt_neox", "fp32", (256, 8)),
    Case("gpt_neox", "bf16", (1024, 4), {"rank": 64}, checkpointing=True),
    Case("gpt2", "fp32", (1024, 2), {"method": "dora"}),
    Case("llama", "bf16", (1024, 4), {"target_modules": "attention"}),
    Case("llama", "bf16", (512, 8), quantization="fp8"),
    Case("gpt_neox", "bf16", (512, 4), {"method": "full"}, optimizer="sgd"),
    Case("opt", "fp32", (256, 4)),
    Case("llama", "bf16", (1024, 4), quantization="nf4", checkpointing=True),
    Case("smollm2-135m", "bf16", (256, 1)),
    Case("smollm2-135m", "bf16", (64, 1), {"method": "full"}, optimizer="adamw-8bit"),
    Case("smollm2-135m", "bf16", (64, 1), {"method": "loha"}),
)
"""What was measured afterwards alone."""
LIBRARIES = (Case("llama", "bf16", (16, 1)),)
"""Next to nothing: what is measured is what libraries take from the first model and step on."""
CASES = SEEN + UNSEEN + LIBRARIES


def save(name: str, folder: Path) -> None:
    """A model with random weights in bfloat16, written in a process of its own, whose memory goes with it."""
    if name in SMALL:
        config = transformers.AutoConfig.for_model(name, bos_token_id=0, eos_token_id=0, pad_token_id=0, **SMALL[name])
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    else:
        model = load_random(plan_model(name), precision="bf16", device="cpu").model
    model.save_pretrained(folder)


def measure(case: Case, folder: Path, device_name: str | None) -> tuple[int, int]:
    """Expected and measured peak bytes, in this process."""
    prepare_process()
    device = choose_device(device_name)
    reset_peak_memory(torch.device(device.type))
    before = peak_memory(torch.device(device.type))
    shape, (context_length, rows) = read_model_shape(folder), case.tokens
    precision, quantization = PRECISIONS[case.precision], quantization_of(case.quantization)
    base = load_base(folder, precision=precision, device=str(device), quantization=quantization)
    settings = METHODS.get(case.adapter.get("method", "lora")).settings(**case.adapter)
    workload = Workload(
        context_length=context_length,
        precision=case.precision,
        evaluation_tokens=0,
        train_tokens=context_length * rows,
        adapter=settings,
        target_modules=tuple(method_of(settings).resolve_targets(shape, settings)),
        rows_at_once=rows,
        checkpointing=case.checkpointing,
        optimizer=case.optimizer,
        quantization=case.quantization,
    )
    adapter = attach(base, settings, seed=0)
    base.checkpointing = case.checkpointing
    optimizer = make_optimizer(adapter, TrainingSettings.model_validate({"optimizer": case.optimizer}))
    text = Subject(case.model, "random", shape, base, device, 0.0, None).training_text(rows, context_length)
    batch = make_batch(text.rows(context_length, 0, 0))
    base.release_memory()
    reset_peak_memory(base.device)
    for _ in range(2):
        torch.autograd.backward(base.loss(base.send(batch), list(range(rows))))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return estimate_memory(shape, workload) - PROCESS_BYTES, peak_memory(base.device) - before


def main() -> None:
    """A row for each configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", help="configurations by their number, from 1")
    parser.add_argument("--device")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    processes = multiprocessing.get_context("fork")  # the libraries are imported once
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}\n")
    print("| | model | adapter | base | context × rows | optimizer | checkpointing | expected | measured | ratio |")
    print("| ---: | --- | --- | --- | --- | --- | --- | ---: | ---: | ---: |")
    for number in arguments.only or range(1, len(CASES) + 1):
        case = CASES[number - 1]
        with tempfile.TemporaryDirectory() as folder:
            with processes.Pool(1) as pool:
                pool.apply(save, (case.model, Path(folder)))
            with processes.Pool(1) as pool:
                expected, measured = pool.apply(measure, (case, Path(folder), arguments.device))
        adapter = ", ".join(f"{key} {value}" for key, value in case.adapter.items() if key != "method")
        adapter = case.adapter.get("method", "lora") + (f", {adapter}" if adapter else "")
        base = case.precision if case.quantization == "none" else f"{case.precision}, {case.quantization}"
        shape, again = f"{case.tokens[0]} × {case.tokens[1]}", "yes" if case.checkpointing else ""
        megabytes = f"{expected / 1e6:.0f} MB | {measured / 1e6:.0f} MB | {expected / measured:.2f}"
        print(
            f"| {number} | {case.model} | {adapter} | {base} | {shape} | {case.optimizer} | {again} | {megabytes} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
