"""Paused runs in memory: the same as from disk to the last bit, only as they lie on disk, and no more than fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lorabench
from lorabench.methods.attach import attach
from lorabench.methods.registry import METHODS, method_of
from lorabench.models.base import load_base
from lorabench.runs import loaded, stages
from lorabench.runs.keeping import Held, Keeper
from lorabench.tokens.packing import make_batch, stream_rows
from lorabench.training import checkpoints
from lorabench.training.checkpoints import (
    Checkpoints,
    Position,
    State,
    check_values,
    load_checkpoint,
    manifest_of,
    read_latest,
    save_checkpoint,
)
from tests.runs.conftest import ExperimentWriter
from tests.runs.test_search import SEARCH, TRAINING, decisions, write
from tests.training.tiny import TinyAdapter


class Kept(TinyAdapter):
    """A tiny adapter, its optimizer after two steps, and the checkpoint of it."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        super().__init__(seed)
        self.folder = folder
        self.held = Held(self)  # type: ignore[arg-type]
        self.trunk = self.held.trunk(Checkpoints(folder, "this run", seconds=1e9, num_recorded_steps=0))
        self.optimizer = self.make_optimizer()
        for _ in range(2):
            self.step(self.optimizer)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [self.down, self.up]

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters, lr=0.1)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter in self.parameters:
            parameter.grad = torch.sin(parameter.detach() + 1.0)
        optimizer.step()

    def save(self, steps: int = 2) -> None:
        position = Position(steps_done=steps, step_seconds=[0.1, 1 / 3])
        save_checkpoint(
            self.folder, position, dict(self.named_parameters()), self.optimizer, "this run", self.trunk.keep
        )

    def load(self, recall: Any) -> tuple[Position, torch.optim.Optimizer]:
        optimizer = self.make_optimizer()
        position, problems = load_checkpoint(
            self.folder, dict(self.named_parameters()), optimizer, "this run", recall=recall
        )
        assert not problems
        assert position is not None
        return position, optimizer

    def bits(self, optimizer: torch.optim.Optimizer) -> list[bytes]:
        """Of everything that the next step depends on."""
        states = [value for parameter in self.parameters for _, value in sorted(optimizer.state[parameter].items())]
        return [tensor.detach().numpy().tobytes() for tensor in (*self.parameters, *states, torch.get_rng_state())]


def no_reading(path: Path, manifest: bytes) -> State:
    raise AssertionError(f"{path} was read")


def test_what_is_in_memory_is_what_lies_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the run trained on from it, and after a rung did so from a copy."""
    run = Kept(tmp_path)
    run.save()
    position, optimizer = run.load(recall=lambda manifest: None)
    expected = run.bits(optimizer)
    run.step(optimizer)
    after = run.bits(optimizer)
    monkeypatch.setattr(checkpoints, "_read_state", no_reading)
    for recall in (run.held.branch(run.trunk).recall, run.trunk.recall):
        found, optimizer = run.load(recall)
        assert found == position
        assert run.bits(optimizer) == expected
        run.step(optimizer)
        assert run.bits(optimizer) == after
    assert run.held.state is None  # given away: the loop trains on with it


def test_another_checkpoint_on_disk_is_taken_from_there(tmp_path: Path) -> None:
    """Another process has gone on with the run meanwhile."""
    run, other = Kept(tmp_path), Kept(tmp_path, seed=1)
    run.save()
    keeper = Keeper(10**9)
    keeper.put("run", run.held)
    other.save()
    assert keeper.take("run", manifest_of(tmp_path)) is None
    assert keeper.take("run", run.held.state.manifest if run.held.state else None) is None  # it was let go
    for recall in (run.held.branch(run.trunk).recall, run.trunk.recall):
        _, optimizer = run.load(recall)
        assert run.bits(optimizer) == other.bits(other.optimizer)


def test_no_more_is_kept_than_there_is_room_for(tmp_path: Path) -> None:
    runs = [Kept(tmp_path / str(number)) for number in range(3)]
    for run in runs:
        run.save()
    size = 4 * 2 * 50 * 4  # both factors of rank 4 over 50 tokens, in float32
    state = 3 * size + 2 * 4 + torch.get_rng_state().numel()  # both moments, a step of each factor, random state
    keeper = Keeper(2 * (size + state))
    for number, run in enumerate(runs):
        keeper.put(str(number), run.held)
    assert keeper.num_bytes() == keeper.num_bytes("cpu") == 2 * (size + state)
    found = [keeper.take(str(number), manifest_of(run.folder)) for number, run in enumerate(runs)]
    assert found == [runs[0].held, runs[1].held, None]
    assert keeper.num_bytes() == 0


@pytest.mark.parametrize("method", ["lora", "lora_plus", "lora_fa"])
def test_an_empty_adapter_is_the_drawn_one_once_it_is_read(
    tiny_model: Callable[[str], Path], tmp_path: Path, method: str
) -> None:
    """Also where part of it is never trained, and so is in no checkpoint: that part is drawn."""
    settings = METHODS.get(method).settings(method=method, rank=2, target_modules="all-linear", dropout=0.1)
    base = load_base(tiny_model("smollm2"), precision="bf16", device="cpu")
    batch = make_batch(list(stream_rows([np.arange(2, 30, dtype=np.int32)], [0], prefix=0, context_length=32)))
    drawn, empty = attach(base.twin(), settings, seed=5), method_of(settings).attach_empty(base, settings, seed=5)
    for weight in drawn.parameters:
        weight.data += 0.01
    optimizer = torch.optim.AdamW(drawn.parameters)
    kept: list[State] = []
    save_checkpoint(
        tmp_path, Position(steps_done=1), dict(drawn.named_parameters()), optimizer, "this run", kept.append
    )
    state, parameters = read_latest(tmp_path, "this run"), dict(empty.named_parameters())
    assert state is not None
    check_values(state, parameters)
    assert read_latest(tmp_path, "another run") is None
    load_checkpoint(
        tmp_path, parameters, torch.optim.AdamW(empty.parameters), "this run", recall=lambda manifest: state
    )
    assert [weight.dtype for weight in empty.parameters] == [torch.float32] * len(drawn.parameters)
    assert empty.base.execution == drawn.base.execution
    assert torch.equal(empty.base.loss(batch, [7]), drawn.base.loss(batch, [7]))
    name = next(iter(parameters))
    with pytest.raises(ValueError, match=f"adapter.{name} is missing"):
        check_values(replace(state, values={}), parameters)
    with pytest.raises(ValueError, match="another shape"):
        check_values(state, {name: torch.zeros(3)})


@pytest.mark.slow
def test_a_search_decides_the_same_from_memory_and_from_disk(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    read_state = checkpoints._read_state

    def counted(path: Path, manifest: bytes) -> State:
        read.append(path)
        return read_state(path, manifest)

    def made(*arguments: Any, **options: Any) -> Any:
        adapters.append(attach(*arguments, **options))
        return adapters[-1]

    adapters: list[Any] = []
    monkeypatch.setattr(checkpoints, "_read_state", counted)
    monkeypatch.setattr(stages, "attach", made)
    adapter = {"rank": [1, 2], "dropout": 0.1}
    training = {**TRAINING, "learning_rate": [0.01, 0.03]}
    path = write(experiment, adapter=adapter, training=training, search={**SEARCH, "eta": 2, "seeds_at_the_end": 1})
    lorabench.run(path, tmp_path / "memory", trackers=["none"])
    assert {one.parent.name[:4] for one in read} == {"rung"}  # only what was stopped, as it was at its rung
    assert len(adapters) == 4  # one for each configuration, also where it is stopped
    read.clear()
    monkeypatch.setattr(loaded, "SHARE_OF_MEMORY", 0.0)
    lorabench.run(path, tmp_path / "disk", trackers=["none"])
    assert any(one.parent.name == "checkpoints" for one in read)
    assert decisions(tmp_path / "memory") == decisions(tmp_path / "disk")
