"""The parts of `gpu_check.py`, one process each: prints what it found, then one line of JSON.

python benchmarks/gpu_check_parts.py equality --device cpu --tiny
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import inspect
import json
import math
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from lorabench.experiment.estimates import training_multiply_adds
from lorabench.experiment.workload import Workload
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import FrozenBase, Precision, freeze, load_base
from lorabench.models.planning import plan_model
from lorabench.models.random_weights import load_random
from lorabench.samplepack.mini_tokenizers import save_tokenizer, train_tokenizer
from lorabench.samplepack.stories import write_stories
from lorabench.tokens.packing import PackedBatch, Segment, make_batch, stream_rows

MATRIX_RATE = 798e12
"""Operations per second that an H100 and an H200 were measured to reach in bfloat16."""
GOALS = {"gpt2": 0.20, "pythia-410m": 0.30, "gemma-2b": 0.45}
"""The models, and the share of it that each should reach."""
STORIES_BEHIND_WINDOWS = 0.9
FASTER_THAN_PEER = 1.8
NEEDED_BY_A_RUN = ("matplotlib", "pandas", "plotly", "pyarrow", "rensa", "scipy")
"""Beside what every part needs: for deduplication, records of documents, statistics, the page and its figures."""
VOCABULARY = 307
KINDS = ("gpt2", "neox", "llama", "gemma")
LENGTHS = ((20, 1, 11), (150, 7, 260), (130, 128, 129), (512,))
PLAIN_STEPS, FIRST_STEPS, TIMED_STEPS = 3, 3, 5
"""Timed without a graph; not timed with one, because they compile, warm up and capture; timed with one."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--kind", choices=KINDS, help="of model, of `equality`; all where none is named")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    machine = Machine(torch.device(options.device), options.tiny)
    try:
        answer = equality_of(options.kind, machine) if options.kind else PARTS[options.part](machine)
    except Exception as error:
        answer = Answer([f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"], {})
    print(json.dumps({"problems": answer.problems, **answer.values}))


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
    """The fast path is PEFT's in float32, the processor's too, and bfloat16 is near. A process for each kind."""
    kinds = ("gpt2", "llama") if machine.tiny else KINDS
    how = ["--device", str(machine.device), *(["--tiny"] if machine.tiny else [])]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "equality", "--kind", kind, *how], stdout=subprocess.PIPE, text=True
        )
        for kind in kinds
    ]
    problems, values = [], {}
    for kind, process in zip(kinds, started, strict=True):
        said = process.communicate()[0].splitlines()
        found = json.loads(said[-1]) if said else {"problems": [f"{kind}: exit code {process.returncode}"]}
        problems += found.pop("problems")
        values |= found
    return Answer(problems, values)


def equality_of(kind: str, machine: Machine) -> Answer:
    """Of one kind of model."""
    problems, values = [], {}
    generator = np.random.default_rng(0)
    tokens = [[generator.integers(0, VOCABULARY, n + 1).astype(np.int32) for n in row] for row in LENGTHS]
    model = small_model(kind)
    for unscored in (0, 3):
        batch = make_batch([[Segment(0, ids, min(unscored, len(ids) - 2)) for ids in row] for row in tokens])
        fast, adapter = adapted(model, "fp32", machine.device)
        ours = one_step(fast, adapter, batch)
        scored = float(fast.token_nll(batch).double().sum()) / batch.num_scored
        fast.use_reference_path("yardstick")
        half, half_adapter = adapted(model, "bf16", machine.device)
        bf16 = one_step(half, half_adapter, batch)
        limits = {"PEFT": (one_step(fast, adapter, batch), ours, 1e-5, 1e-4)}
        limits["processor"] = (one_step(*adapted(model, "fp32", torch.device("cpu")), batch), ours, 1e-5, 1e-4)
        limits["bf16"] = (bf16, ours, 1e-2, 0.15)
        if machine.is_gpu:
            limits["graph"] = (replayed_step(half, half_adapter, batch), bf16, 1e-3, 1e-2)
            if half.execution.reason or not half.has_graphs:
                problems.append(f"{kind}: no CUDA graph: {half.execution.reason or 'none was captured'}")
        for name, (theirs, wanted, most, most_gradient) in limits.items():
            loss, gradient = difference(theirs, wanted)
            values[f"{kind} {unscored} {name}"] = [loss, gradient]
            if not (loss <= most and gradient <= most_gradient):
                problems.append(f"{kind}: {name} is {loss:.1e} apart in the loss, {gradient:.1e} in the gradients")
        if not abs(scored - ours[0]) <= 1e-5 * abs(ours[0]):
            problems.append(f"{kind}: scored {scored:.7f}, trained {ours[0]:.7f}")
    return Answer(problems, values)


def replayed_step(base: FrozenBase, adapter: Adapter, batch: PackedBatch) -> tuple[float, dict[str, torch.Tensor]]:
    """As `one_step`, by a CUDA graph that was captured on other documents."""
    generator = np.random.default_rng(1)
    rows = [
        [Segment(0, generator.integers(0, VOCABULARY, n + 1).astype(np.int32), 0) for n in reversed(row)]
        for row in LENGTHS
    ]
    for other in (make_batch(rows), make_batch(rows), make_batch(rows), batch):
        for parameter in adapter.parameters:
            parameter.grad = None
        loss = add_gradients(base, other)
    gradients = {name: value.grad.float().cpu() for name, value in adapter.named_parameters() if value.grad is not None}
    return float(loss) / batch.num_scored, gradients


def add_gradients(base: FrozenBase, batch: PackedBatch) -> torch.Tensor:
    """As the training loop does."""
    scaler = torch.amp.GradScaler(base.device.type, enabled=False)
    return base.add_gradients(base.send(batch), [0] * batch.num_rows, batch.num_scored, scaler)


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
    problems, rows = [], []
    num_rows, context = (2, 64) if machine.tiny else (16, 1024)
    with tempfile.TemporaryDirectory() as temporary:
        tiny = [str(save_model(machine, Path(temporary) / "tiny"))] if machine.tiny else []
        for name in tiny or GOALS:
            plan = plan_model(name)
            base = load_random(plan, precision="bf16", device=str(machine.device))
            adapter = attach(base, AdapterSettings(rank=16), seed=0)
            rates = {}
            for kind in ("windows", *DOCUMENTS):
                batches = text_like(kind, num_rows, context, FIRST_STEPS + TIMED_STEPS)
                row = time_steps(base, adapter, batches, machine)
                rates[kind] = num_rows * context / row["median"]
                rows.append({"model": plan.name, "text": kind, "rate": rates[kind], **row})
            work = Workload(
                context, "bf16", 0, adapter=AdapterSettings(rank=16), target_modules=tuple(plan.shape.linears)
            )
            share = 2 * training_multiply_adds(plan.shape, work) * rates["windows"] / MATRIX_RATE
            rows[-1]["share"] = share
            if machine.is_gpu:
                rows[-1]["kernels"] = count_kernels(base, batches[0], machine)
            behind = rates["stories"] / rates["windows"]
            print(f"{plan.name}: {rates['windows']:,.0f} tokens/s, stories {behind:.0%} of it, {share:.0%} of the rate")
            if not machine.tiny and behind < STORIES_BEHIND_WINDOWS:
                problems.append(f"{name}: stories reach {behind:.0%} of windows")
            if not machine.tiny and share < GOALS[name]:
                problems.append(f"{name}: {share:.0%} of the card's rate, {GOALS[name]:.0%} wanted")
            if base.execution.reason:
                problems.append(f"{name}: {base.execution.reason}")
            base.free()
            del base, adapter
    return Answer(problems, {"rows": rows})


def time_steps(base: FrozenBase, adapter: Adapter, batches: list[PackedBatch], machine: Machine) -> dict[str, float]:
    """Seconds of the first step, of the median one by graphs and without, and on a GPU peak bytes."""
    if machine.is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(machine.device)
    base.captures = False
    plain = list(_seconds(base, adapter, batches[: PLAIN_STEPS + 1], machine))
    base.captures = True
    seconds = list(_seconds(base, adapter, batches, machine))
    found = {
        "first": plain[0],
        "median": statistics.median(seconds[FIRST_STEPS:]),
        "plain": statistics.median(plain[1:]),
    }
    if machine.is_gpu:
        found["slowest"] = max(seconds[FIRST_STEPS:])
        found["allocated"] = torch.cuda.max_memory_allocated(machine.device)
        found["reserved"] = torch.cuda.max_memory_reserved(machine.device)
    return found


def _seconds(base: FrozenBase, adapter: Adapter, batches: list[PackedBatch], machine: Machine) -> Iterator[float]:
    for batch in batches:
        started = time.perf_counter()
        add_gradients(base, batch)
        machine.wait()
        yield time.perf_counter() - started
        for parameter in adapter.parameters:
            parameter.grad = None


def count_kernels(base: FrozenBase, batch: PackedBatch, machine: Machine) -> int:
    """Kernels and copies that a forward and a backward pass launch, by the card's own count."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        torch.autograd.backward(base.loss(batch) / batch.num_scored)
        machine.wait()
    return sum(event.count for event in profiler.key_averages() if event.self_device_time_total > 0)


def command(*arguments: str) -> str:
    """What a Python program prints; its last words where it fails."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
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


def save_model(machine: Machine, folder: Path) -> Path:
    """GPT-2 at its real size, or a tiny relative, with random weights and a tokenizer of its kind."""
    if not machine.tiny:
        from compare_with_peer import save_random

        return save_random("gpt2", folder)
    small_model("gpt2").save_pretrained(folder)
    save_tokenizer(train_tokenizer("gpt2", write_stories(50), VOCABULARY), "gpt2", folder, 512)
    return folder


def bench(machine: Machine) -> Answer:
    """The program's own measurement, its limit beside it."""
    kept = ("tokens_per_second", "share_of_limit", "evaluation_tokens_per_second", "peak_memory_bytes")
    kept += ("compile_seconds", "execution_path", "execution_reason")
    values = {}
    with tempfile.TemporaryDirectory() as temporary:
        tiny = [str(save_model(machine, Path(temporary) / "tiny"))] if machine.tiny else []
        for name in tiny or GOALS:
            result = bench_model(name, machine, random_weights=True)
            values[result["model"]] = {key: result[key] for key in kept}
    slow = [f"{name}: {value['execution_reason']}" for name, value in values.items() if value["execution_reason"]]
    return Answer(slow, values)


def peer(machine: Machine) -> Answer:
    """Against PEFT and the Transformers Trainer on the same weights, both in bfloat16."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_model(machine, Path(temporary) / "model")
        text = Path(temporary) / "text.txt"
        text.write_text("\n\n".join(write_stories(300)), encoding="utf-8")
        ours = bench_model(str(folder), machine, random_weights=False)
        what = ["--model", str(folder), "--text", str(text), "--precision", "bf16", "--weights", "bf16", "--steps"]
        size = ["4", "--context-length", "64"] if machine.tiny else ["6", "--context-length", "1024"]
        rows = ["--batch-size", "2" if machine.tiny else "16"]
        theirs = json.loads(command("benchmarks/run_peer.py", *what, *size, *rows).splitlines()[-1])
    ratio = ours["tokens_per_second"] / theirs["tokens_per_second"]
    print(f"{ours['tokens_per_second']:,.0f} against {theirs['tokens_per_second']:,.0f} tokens/s: {ratio:.2f} times")
    slow = not machine.tiny and ratio < FASTER_THAN_PEER
    values = {"ratio": ratio, "ours_bytes": ours["peak_memory_bytes"], "theirs_bytes": theirs["peak_gpu_bytes"]}
    return Answer([f"{ratio:.2f} times, {FASTER_THAN_PEER} wanted"] if slow else [], values)


def killed_run(machine: Machine) -> Answer:
    """A run of local files that SIGKILL ends once it has a checkpoint goes on from there."""
    if missing := [name for name in NEEDED_BY_A_RUN if importlib.util.find_spec(name) is None]:
        return Answer([], {"skipped": f"a whole run needs {', '.join(missing)}, which this machine lacks"})
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        write_experiment(machine, where)
        asked = [
            sys.executable,
            "-m",
            "lorabench",
            "run",
            str(where / "check.yaml"),
            "--output-dir",
            str(where / "out"),
        ]
        asked += ["--tracker", "none", "--checkpoint-seconds", "0", "--device", str(machine.device)]
        with (where / "log").open("w") as log:
            first = subprocess.Popen(asked, stdout=log, stderr=log)
            while first.poll() is None and not _checkpoints(where / "out"):
                time.sleep(0.02)
            first.kill()
            code = first.wait()
        stood = max(_checkpoints(where / "out"), default=0)
        again = subprocess.run(asked, capture_output=True, text=True, check=False)
        records = list((where / "out").rglob("record.json"))
        if code != -signal.SIGKILL or again.returncode or len(records) != 1:
            said = (where / "log").read_text(encoding="utf-8") if code > 0 else again.stdout + again.stderr
            return Answer([f"exit codes {code} and {again.returncode}, {len(records)} records: {said[-200:]}"], {})
        record = json.loads(records[0].read_text(encoding="utf-8"))
    problems = [] if record["num_resumed"] == 1 else [f"it was killed after step {stood} and began anew"]
    return Answer(problems, {"killed_after": stood, "num_resumed": record["num_resumed"]})


def write_experiment(machine: Machine, folder: Path) -> None:
    """One short run on files of the folder."""
    save_model(machine, folder / "model")
    (folder / "stories.txt").write_text("\n\n".join(write_stories(1000)), encoding="utf-8")
    experiment = {
        "name": "check",
        "question": "Does it go on?",
        "models": ["./model"],
        "datasets": ["./stories.txt"],
        "adapter": {"rank": 8},
        "training": {"learning_rate": 1e-3, "batch_size": 2, "context_length": 64, "train_bytes": 20_000},
        "evaluation": {"validation_bytes": 4000, "test_bytes": 4000, "times": 1, "samples": 0},
    }
    (folder / "check.yaml").write_text(json.dumps(experiment), encoding="utf-8")


def _checkpoints(folder: Path) -> list[int]:
    """Steps after which a whole checkpoint was written."""
    return [int(path.parent.name.partition("-")[2]) for path in folder.rglob("step-*/manifest.json")]


def nf4(machine: Machine) -> Answer:
    """A base in four bits trains as PEFT's does."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return Answer([], {"skipped": "bitsandbytes is not installed"})
    if "quantization" not in inspect.signature(load_base).parameters:
        return Answer([], {"skipped": "this lorabench trains on no base in four bits"})
    generator = np.random.default_rng(0)
    tokens = [[generator.integers(0, VOCABULARY, n + 1).astype(np.int32) for n in row] for row in LENGTHS]
    batch = make_batch([[Segment(0, ids, 0) for ids in row] for row in tokens])
    with tempfile.TemporaryDirectory() as temporary:
        small_model("llama").save_pretrained(temporary)
        load: Any = load_base
        base = load(Path(temporary), precision="bf16", device=str(machine.device), quantization="nf4")
    adapter = attach(base, AdapterSettings(rank=8), seed=3)
    ours = one_step(base, adapter, batch)
    base.use_reference_path("yardstick")
    loss, gradient = difference(one_step(base, adapter, batch), ours)
    near = loss <= 1e-2 and gradient <= 0.15
    problems = [] if near else [f"PEFT is {loss:.1e} apart in the loss, {gradient:.1e} in the gradients"]
    return Answer(problems, {"PEFT": [loss, gradient]})


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
    "run": killed_run,
    "nf4": nf4,
    "speed": speed,
    "bench": bench,
    "peer": peer,
}


if __name__ == "__main__":
    main()
