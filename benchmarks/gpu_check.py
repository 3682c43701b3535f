"""What lorabench does on a GPU, in six minutes: each part prints `ok` or `FAIL`, what it found, and one line of JSON.

    bash benchmarks/gpu_check.sh                       # every part, on the first GPU
    bash benchmarks/gpu_check.sh equality speed        # some of them
    bash benchmarks/gpu_check.sh --device cpu --tiny   # the script itself, without a GPU

Exit code 1 where a part failed, 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import FrozenBase, Precision, freeze
from lorabench.tokens.packing import PackedBatch, Segment, make_batch, stream_rows

MATRIX_RATE = 798e12
"""Operations per second that an H100 was measured to reach in bfloat16."""
GOALS = {"gemma-2b": 0.45, "pythia-410m": 0.30}
"""Shares of it."""
STORIES_BEHIND_WINDOWS = 0.9
FASTER_THAN_PEER = 1.8
VOCABULARY = 307
LENGTHS = ((20, 1, 11), (150, 7, 260), (130, 128, 129), (512,))
DOCUMENTS = {"stories": (205, 0.4), "web": (700, 1.0)}
"""Median and spread of the logarithm of their lengths in tokens."""


@dataclass(frozen=True)
class Machine:
    """Where the parts run, and how large they are."""

    device: torch.device
    tiny: bool

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Answer:
    """What a part found."""

    problems: list[str]
    values: dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all of them where none is named")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="small models and few steps: tests the script, measures nothing"
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; accepted: {', '.join(PARTS)}")
    machine = Machine(torch.device(options.device), options.tiny)
    if machine.is_gpu and not torch.cuda.is_available():
        print("gpu_check: torch finds no GPU here; try --device cpu --tiny to test the script itself", file=sys.stderr)
        return 2
    torch.backends.cuda.matmul.allow_tf32 = False
    failed = [name for name in options.parts or PARTS if not run_part(name, machine)]
    print(f"failed: {', '.join(failed)}" if failed else "every part is ok")
    return int(bool(failed))


def run_part(name: str, machine: Machine) -> bool:
    """Whether it went well; a part that breaks does not keep the others from running."""
    started = time.perf_counter()
    try:
        answer = PARTS[name](machine)
    except Exception as error:
        answer = Answer([f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"], {})
    for problem in answer.problems:
        print(f"     {problem}")
    seconds = round(time.perf_counter() - started, 1)
    print(f"{'FAIL' if answer.problems else 'ok  '} {name} ({seconds} s)")
    print(json.dumps({"part": name, "ok": not answer.problems, "seconds": seconds, **answer.values}), flush=True)
    return not answer.problems


def small_model(kind: str) -> Any:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    more = {"intermediate_size": 96, "max_position_embeddings": 512}
    made = {
        "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, n_positions=512)),
        "neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes, **more, rotary_pct=0.25)),
        "llama": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**sizes, **more, num_key_value_heads=2)
        ),
        "gemma": lambda: transformers.GemmaForCausalLM(
            transformers.GemmaConfig(**sizes, **more, num_key_value_heads=1, head_dim=32)
        ),
    }
    torch.manual_seed(0)
    model: Any = made[kind]()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3.0)
    return model


def adapted(model: Any, precision: Precision, device: torch.device) -> tuple[FrozenBase, Adapter]:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    base = freeze(copy.deepcopy(model).to(device, dtype), device, precision)
    adapter = attach(base, AdapterSettings(rank=8), seed=3)
    generator = torch.Generator().manual_seed(1)
    for _, parameter in adapter.named_parameters():
        parameter.data.add_((0.1 * torch.randn(parameter.shape, generator=generator)).to(parameter.device))
    return base, adapter


def one_step(base: FrozenBase, adapter: Adapter, batch: PackedBatch) -> tuple[float, dict[str, torch.Tensor]]:
    loss = base.loss(batch)
    torch.autograd.backward(loss / batch.num_scored)
    gradients = {name: value.grad.float().cpu() for name, value in adapter.named_parameters() if value.grad is not None}
    for parameter in adapter.parameters:
        parameter.grad = None
    return float(loss.detach()) / batch.num_scored, gradients


def difference(one: Any, other: Any) -> tuple[float, float]:
    """Of losses and of gradients, relative; the largest."""
    (loss, gradients), (their_loss, theirs) = one, other
    apart = [float((gradients[name] - theirs[name]).norm() / (theirs[name].norm() + 1e-20)) for name in theirs]
    return abs(loss - their_loss) / abs(their_loss), max(apart)


def equality(machine: Machine) -> Answer:
    """The fast path is PEFT's in float32, the processor's too, and bfloat16 is near."""
    problems, values = [], {}
    generator = np.random.default_rng(0)
    tokens = [[generator.integers(0, VOCABULARY, n + 1).astype(np.int32) for n in row] for row in LENGTHS]
    for kind, unscored in itertools.product(
        ["gpt2", "llama"] if machine.tiny else ["gpt2", "neox", "llama", "gemma"], (0, 3)
    ):
        model = small_model(kind)
        batch = make_batch([[Segment(0, ids, min(unscored, len(ids) - 2)) for ids in row] for row in tokens])
        fast, adapter = adapted(model, "fp32", machine.device)
        ours = one_step(fast, adapter, batch)
        scored = float(fast.token_nll(batch).double().sum()) / batch.num_scored
        fast.use_reference_path("yardstick")
        limits = {"PEFT": (one_step(fast, adapter, batch), 1e-5, 1e-4)}
        limits["processor"] = (one_step(*adapted(model, "fp32", torch.device("cpu")), batch), 1e-5, 1e-4)
        limits["bf16"] = (one_step(*adapted(model, "bf16", machine.device), batch), 1e-2, 0.15)
        for name, (theirs, most, most_gradient) in limits.items():
            loss, gradient = difference(theirs, ours)
            values[f"{kind} {unscored} {name}"] = [loss, gradient]
            if loss > most or gradient > most_gradient:
                problems.append(f"{kind}: {name} is {loss:.1e} apart in the loss, {gradient:.1e} in the gradients")
        if abs(scored - ours[0]) > 1e-5 * abs(ours[0]):
            problems.append(f"{kind}: scored {scored:.7f}, trained {ours[0]:.7f}")
    return Answer(problems, values)


def real_model(name: str, machine: Machine) -> FrozenBase:
    """At its real size in bfloat16, filled where it lies."""
    from lorabench.models.catalog import get_model
    from lorabench.models.random_weights import build, config_of_entry

    config: Any = config_of_entry(get_model(name))  # type: ignore[arg-type]
    model = build(config, torch.bfloat16).to(machine.device)
    for key, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, 0.02)
        else:
            parameter.data.fill_(float("bias" not in key and config.model_type != "gemma"))
    return freeze(model, machine.device, "bf16")


def text_like(kind: str, num_rows: int, context: int, num_steps: int) -> list[PackedBatch]:
    """A batch for each step: full rows of random ids, of one document each or of documents of a kind's lengths."""
    generator = np.random.default_rng(0)
    documents, total = [], 0
    while total < num_rows * context * num_steps:
        length = context
        if kind in DOCUMENTS:
            median, spread = DOCUMENTS[kind]
            length = max(2, int(generator.lognormal(math.log(median), spread)))
        documents.append(generator.integers(0, 200, length).astype(np.int32))
        total += length
    rows = list(stream_rows(documents, range(len(documents)), prefix=0, context_length=context))
    return [make_batch(rows[first : first + num_rows]) for first in range(0, num_rows * num_steps, num_rows)]


def speed(machine: Machine) -> Answer:
    """Seconds, memory and share of the card's rate on three models and three kinds of text; kernels of a step."""
    from lorabench.experiment.estimates import training_multiply_adds
    from lorabench.models.planning import plan_model

    problems, rows = [], []
    num_rows, context, num_steps = (2, 64, 3) if machine.tiny else (16, 1024, 6)
    for name in ("gpt2-mini",) if machine.tiny else ("gpt2", "pythia-410m", "gemma-2b"):
        base = real_model(name, machine)
        adapter = attach(base, AdapterSettings(rank=16), seed=0)
        rates = {}
        for kind in ("windows", *DOCUMENTS):
            if machine.is_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(machine.device)
            seconds = []
            for batch in text_like(kind, num_rows, context, num_steps):
                started = time.perf_counter()
                torch.autograd.backward(base.loss(batch) / batch.num_scored)
                machine.wait()
                seconds.append(time.perf_counter() - started)
                for parameter in adapter.parameters:
                    parameter.grad = None
            median = sorted(seconds[1:])[len(seconds[1:]) // 2]
            rates[kind] = num_rows * context / median
            rows.append({"model": name, "text": kind, "first": seconds[0], "median": median, "rate": rates[kind]})
            if machine.is_gpu:
                rows[-1]["allocated"] = torch.cuda.max_memory_allocated(machine.device)
                rows[-1]["reserved"] = torch.cuda.max_memory_reserved(machine.device)
        plan = plan_model(name)
        from lorabench.experiment.estimates import Workload

        work = Workload(context, "bf16", 0, adapter=AdapterSettings(rank=16), target_modules=tuple(plan.shape.linears))
        share = 2 * training_multiply_adds(plan.shape, work) * rates["windows"] / MATRIX_RATE
        rows[-1]["share"] = share
        if machine.is_gpu:
            rows[-1]["kernels"] = count_kernels(base, text_like("stories", num_rows, context, 1)[0], machine)
        behind = rates["stories"] / rates["windows"]
        print(f"     {name}: {rates['windows']:,.0f} tokens/s, stories {behind:.0%} of it, {share:.0%} of the rate")
        if not machine.tiny and behind < STORIES_BEHIND_WINDOWS:
            problems.append(f"{name}: stories reach {behind:.0%} of windows")
        if not machine.tiny and share < GOALS.get(name, 0.0):
            problems.append(f"{name}: {share:.0%} of the card's rate, {GOALS[name]:.0%} wanted")
        base.free()
        del base, adapter
    return Answer(problems, {"rows": rows})


def count_kernels(base: FrozenBase, batch: PackedBatch, machine: Machine) -> int:
    """Kernels and copies that a forward and a backward pass launch, by the card's own count."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        torch.autograd.backward(base.loss(batch) / batch.num_scored)
        machine.wait()
    return sum(event.count for event in profiler.key_averages() if event.self_device_time_total > 0)


def command(*arguments: str, timeout: float = 300.0) -> str:
    """What a Python program prints; its last words where it fails."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} {arguments[1]}: exit code {done.returncode}: {done.stderr[-250:]}")
    return done.stdout


def bench_model(model: str, machine: Machine, *, random_weights: bool) -> dict[str, Any]:
    """`lorabench bench` at the size of the check."""
    context, rows, steps = ("64", "2", "2") if machine.tiny else ("1024", "16", "6")
    asked = ["--context-length", context, "--batch-size", rows, "--steps", steps, "--precision", "bf16", "--json"]
    more = ["--random-weights"] if random_weights else []
    answer = command("-m", "lorabench", "bench", "--model", model, *asked, *more, "--device", str(machine.device))
    values: dict[str, Any] = json.loads(answer)
    return values


def bench(machine: Machine) -> Answer:
    """The program's own measurement, its limit beside it."""
    names = ("gpt2-mini",) if machine.tiny else ("gpt2", "pythia-410m", "gemma-2b")
    values = {}
    for name in names:
        result = bench_model(name, machine, random_weights=True)
        kept = ("tokens_per_second", "share_of_limit", "evaluation_tokens_per_second", "peak_memory_bytes")
        values[name] = {key: result[key] for key in (*kept, "compile_seconds", "execution_path", "execution_reason")}
    slow = [name for name, value in values.items() if value["execution_reason"]]
    return Answer([f"{name}: {values[name]['execution_reason']}" for name in slow], values)


def peer(machine: Machine) -> Answer:
    """Against PEFT and the Transformers Trainer on the same weights, both in bfloat16."""
    from compare_with_peer import save_random

    from lorabench.samplepack.stories import write_stories

    with tempfile.TemporaryDirectory() as temporary:
        folder = save_random("gpt2-mini" if machine.tiny else "gpt2", Path(temporary) / "model")
        text = Path(temporary) / "text.txt"
        text.write_text("\n\n".join(write_stories(300)), encoding="utf-8")
        ours = bench_model(str(folder), machine, random_weights=False)
        size = (
            ["--context-length", "64", "--batch-size", "2"]
            if machine.tiny
            else ["--context-length", "1024", "--batch-size", "16"]
        )
        what = ["--model", str(folder), "--text", str(text), "--precision", "bf16", "--weights", "bf16", "--steps", "6"]
        theirs = json.loads(command("benchmarks/run_peer.py", *what, *size).splitlines()[-1])
    ratio = ours["tokens_per_second"] / theirs["tokens_per_second"]
    memory = {"ours_bytes": ours["peak_memory_bytes"], "theirs_bytes": theirs["peak_gpu_bytes"]}
    print(
        f"     {ours['tokens_per_second']:,.0f} against {theirs['tokens_per_second']:,.0f} tokens/s: {ratio:.2f} times"
    )
    slow = not machine.tiny and ratio < FASTER_THAN_PEER
    return Answer([f"{ratio:.2f} times, {FASTER_THAN_PEER} wanted"] if slow else [], {"ratio": ratio, **memory})


def stopped_run(machine: Machine) -> Answer:
    """A run of local files that is stopped once it trains goes on where it stood."""
    from compare_with_peer import save_random

    from lorabench.samplepack.stories import write_stories

    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        save_random("gpt2-mini" if machine.tiny else "gpt2", where / "model")
        (where / "stories.txt").write_text("\n\n".join(write_stories(1500)), encoding="utf-8")
        training = {"learning_rate": 1e-3, "batch_size": 2, "context_length": 64, "train_bytes": 60_000}
        budgets = {"validation_bytes": 4000, "test_bytes": 4000, "times": 1, "samples": 0}
        experiment = {
            "name": "check",
            "question": "Does it go on?",
            "models": ["./model"],
            "datasets": ["./stories.txt"],
        }
        experiment |= {"adapter": {"rank": 8}, "training": training, "evaluation": budgets}
        (where / "check.yaml").write_text(json.dumps(experiment), encoding="utf-8")
        asked = [
            sys.executable,
            "-m",
            "lorabench",
            "run",
            str(where / "check.yaml"),
            "--output-dir",
            str(where / "out"),
        ]
        asked += ["--tracker", "none", "--device", str(machine.device)]
        with (where / "log").open("w") as log:
            first = subprocess.Popen(asked, stdout=log, stderr=log)
            until = time.monotonic() + 120
            while first.poll() is None and not _steps(where / "out") and time.monotonic() < until:
                time.sleep(0.05)
            first.send_signal(signal.SIGINT)
            code = first.wait(timeout=60)
        stood = _steps(where / "out")
        again = subprocess.run(asked, capture_output=True, text=True, timeout=200, check=False)
        records = list((where / "out").rglob("record.json"))
        if code == 0 or again.returncode or len(records) != 1:
            return Answer(
                [f"exit codes {code} and {again.returncode}, {len(records)} records: {again.stdout[-200:]}"], {}
            )
        record = json.loads(records[0].read_text(encoding="utf-8"))
    resumed = record["num_resumed"]
    return Answer([] if resumed else ["it began anew"], {"stopped_after": stood, "num_resumed": resumed})


def _steps(folder: Path) -> int:
    """Steps that were written down."""
    return sum(path.read_text(encoding="utf-8").count('"gradient_norm"') for path in folder.rglob("metrics.jsonl"))


def environment(machine: Machine) -> Answer:
    """Card, driver and versions."""
    values: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
    if machine.is_gpu:
        asked = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,memory.total", "--format=csv,noheader"]
        values |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        values["card"] = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return Answer([], values)


PARTS: dict[str, Callable[[Machine], Answer]] = {
    "environment": environment,
    "equality": equality,
    "speed": speed,
    "bench": bench,
    "peer": peer,
    "run": stopped_run,
}


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    sys.exit(main())
