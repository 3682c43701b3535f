"""What it costs to leave one run of a search and to go on with another: from memory, and from disk.

    OMP_NUM_THREADS=2 python benchmarks/measure_swap.py
    OMP_NUM_THREADS=2 python benchmarks/measure_swap.py --search

LoRA on all linear layers, AdamW. Going on from memory is making the optimizer and taking the kept state up; from disk
the adapter is made, too, and the checkpoint is hashed and read. Leaving is writing the checkpoint. With `--search` a
small halving is run, and all of this is timed in it; what every run pays without a search, its first adapter, is left
out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import lorabench
from lorabench.core.machine import prepare_process
from lorabench.experiment.schema import TrainingSettings
from lorabench.methods.adapter import Adapter
from lorabench.methods.attach import attach
from lorabench.methods.lora import Lora
from lorabench.methods.lora_settings import LoraSettings
from lorabench.methods.registry import method_of
from lorabench.models.base import FrozenBase, load_base
from lorabench.models.locate import locate_model
from lorabench.runs import run, rungs, stages
from lorabench.runs.keeping import Held
from lorabench.training import loop
from lorabench.training.checkpoints import Checkpoints, Position, load_checkpoint, read_latest, save_checkpoint
from lorabench.training.optimization import make_optimizer

EXPERIMENT = """
name: swap
models: [{model}]
datasets: {dataset}
adapter: {{rank: [4, 16], target_modules: all-linear}}
training: {{learning_rate: [1.0e-4, 5.0e-4, 2.0e-3], context_length: 256, batch_size: 4, train_bytes: {train_bytes}}}
evaluation: {{validation_bytes: 10000, test_bytes: 10000, samples: 0}}
search: {{strategy: halving, rungs: [1/9, 1/3], seeds_at_the_end: 1}}
"""
TIMED = {
    "making adapters": [(FrozenBase, "twin"), (stages, "attach"), (Lora, "attach_empty"), (Adapter, "detach")],
    "making optimizers": [(loop, "make_optimizer")],
    "taking states up": [(run, "as_it_paused"), (loop, "load_checkpoint")],
    "writing checkpoints": [(loop, "save_checkpoint"), (rungs, "copy_checkpoint")],
}
"""What is timed in a search, and by which functions it is done."""


class Clock:
    """Wall and processor seconds of what is done again and again."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def time(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Do it once."""
        wall, processor = time.perf_counter(), time.process_time()
        try:
            return work(*arguments, **options)
        finally:
            self.wall.append(time.perf_counter() - wall)
            self.processor.append(time.process_time() - processor)

    def __str__(self) -> str:
        wall = [f"{1000 * value:,.0f}" for value in (min(self.wall), statistics.median(self.wall))]
        return f"{' / '.join(wall)} ms, {1000 * statistics.median(self.processor):,.0f} ms of processors"


def measure(base: FrozenBase, rank: int, rounds: int, folder: Path) -> None:
    """Print the swaps of one rank."""
    settings, training = LoraSettings(rank=rank, target_modules="all-linear"), TrainingSettings()
    held = Held(attach(base.twin(), settings, seed=0))
    checkpoints = held.trunk(Checkpoints(folder, "swap", seconds=1e9, num_recorded_steps=0))
    parameters = dict(held.adapter.named_parameters())
    optimizer = make_optimizer(held.adapter, training)
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    clocks = {name: Clock() for name in ("leaving", "going on from memory", "going on from disk")}
    for number in range(rounds):
        position = Position(steps_done=number + 1)
        clocks["leaving"].time(save_checkpoint, folder, position, parameters, optimizer, "swap", checkpoints.keep)

        def from_memory() -> torch.optim.Optimizer:
            made = make_optimizer(held.adapter, training)
            load_checkpoint(folder, parameters, made, "swap", recall=checkpoints.recall)
            return made

        def from_disk() -> None:
            read = Held(method_of(settings).attach_empty(base.twin(), settings, seed=0), read_latest(folder, "swap"))
            taken = dict(read.adapter.named_parameters())
            recall = read.whole(checkpoints).recall
            load_checkpoint(folder, taken, make_optimizer(read.adapter, training), "swap", recall=recall)
            assert read.state is None

        optimizer = clocks["going on from memory"].time(from_memory)
        clocks["going on from disk"].time(from_disk)
    num_bytes = sum(path.stat().st_size for path in folder.rglob("state.safetensors")) / len(list(folder.iterdir()))
    print(f"rank {rank}, {num_bytes / 1e6:,.0f} MB (lowest / median of {rounds})")
    for name, clock in clocks.items():
        print(f"  {name}: {clock}", flush=True)


def measure_search(model: str, dataset: str, train_bytes: int, folder: Path) -> None:
    """Run a halving and print the share of its time that swapping took."""
    experiment = folder / "swap.yaml"
    experiment.write_text(EXPERIMENT.format(model=model, dataset=dataset, train_bytes=train_bytes), encoding="utf-8")
    clocks = {name: Clock() for name in TIMED}
    for name, functions in TIMED.items():
        for owner, function in functions:
            setattr(owner, function, _timed(clocks[name], getattr(owner, function)))
    whole = Clock()
    outcome = whole.time(lorabench.run, experiment, folder / "out", trackers=["none"])
    num_runs = len(outcome.records)
    print(f"a halving of {num_runs} configurations, with loading and report: {whole.wall[0]:,.0f} s")
    swapping, of_processors = 0.0, 0.0
    for name, clock in clocks.items():
        num_first = 2 * num_runs if name == "making adapters" else 0  # a base and an adapter for each at the first rung
        own = sum(clock.wall[num_first:])
        swapping += own
        of_processors += sum(clock.processor[num_first:])
        print(f"  {name}: {len(clock.wall)} calls, {sum(clock.wall):.2f} s, {own:.2f} s of it swapping")
    print(
        f"swapping: {swapping:.1f} s, {swapping / whole.wall[0]:.1%} of the time; {of_processors:.1f} s of processors, "
        f"{of_processors / whole.processor[0]:.1%} of theirs"
    )


def _timed(clock: Clock, function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **options: clock.time(function, *arguments, **options)


def main() -> None:
    """Measure, and print as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dataset", default="medical")
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--search", action="store_true", help="run a halving instead")
    parser.add_argument("--train-bytes", type=int, default=100_000, help="of the halving's runs")
    chosen = parser.parse_args()
    prepare_process()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.search:
            measure_search(chosen.model, chosen.dataset, chosen.train_bytes, Path(folder))
            return
        base = load_base(locate_model(chosen.model).folder, precision="bf16", device="cpu")
        for rank in chosen.ranks:
            measure(base, rank, chosen.rounds, Path(folder) / str(rank))


if __name__ == "__main__":
    main()
