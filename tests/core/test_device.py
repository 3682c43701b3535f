"""The device is chosen once, before planning. GPUs are played: a driver's program on PATH, and torch's answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from lorabench.cli.profile import choose_profile
from lorabench.core import device as devices
from lorabench.core.device import Device, DeviceType, choose_device
from lorabench.core.errors import InputError
from lorabench.experiment.calibration import calibration_path
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import build_experiment
from lorabench.training.checkpoints import Position, load_checkpoint, save_checkpoint

HIDDEN = ["", "-1", "-1,0", "NoDevFiles", " -1 ", ",0"]


def play_driver(folder: Path, num_gpus: int, exit_code: int = 0) -> str:
    """A PATH with an nvidia-smi that shows so many GPUs, or fails."""
    program = folder / "driver" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    lines = "\n".join(f"echo 'GPU {index}: Card (UUID: GPU-{index})'" for index in range(num_gpus))
    failure = "echo 'NVIDIA-SMI has failed because it has no driver' >&2\n" if exit_code else ""
    program.write_text(f"#!/bin/sh\n{lines}\n{failure}exit {exit_code}\n")
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call it with the number of GPUs that the driver shows."""

    def show(num_gpus: int, exit_code: int = 0) -> None:
        monkeypatch.setenv("PATH", play_driver(tmp_path, num_gpus, exit_code))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        devices._nvidia_smi.cache_clear()

    yield show  # type: ignore[misc]
    devices._nvidia_smi.cache_clear()


@pytest.fixture
def two_cards(driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs that torch can use."""
    driver(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    properties = SimpleNamespace(total_memory=80 << 30, major=9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def lorabench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-m", "lorabench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**kept, **environment})


def experiment_on(model: Path, corpus: Path) -> dict[str, object]:
    return {
        "name": "a",
        "models": [str(model)],
        "datasets": [str(corpus)],
        "adapter": {"rank": 2},
        "training": {"context_length": 32, "batch_size": 4096, "train_bytes": 2000},
    }


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "words.jsonl"
    path.write_text("".join(json.dumps({"text": f"word {index} " * (5 + index % 7)}) + "\n" for index in range(60)))
    return path


def test_without_a_driver_it_is_the_processor_and_torch_is_not_imported(tmp_path: Path) -> None:
    code = "import sys; from lorabench.core.device import choose_device; print(choose_device(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cpu", "False"]


@pytest.mark.parametrize("value", HIDDEN)
def test_hidden_gpus_are_none_without_a_word(tmp_path: Path, value: str) -> None:
    code = (
        "import sys; from lorabench.core.device import *; d = choose_device(); "
        "print(d, [d.note], 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PATH": play_driver(tmp_path, 1), "CUDA_VISIBLE_DEVICES": value}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["cpu", "['']", "False"]


@pytest.mark.parametrize("value", HIDDEN)
def test_asking_for_a_hidden_gpu_is_refused(two_cards: None, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with pytest.raises(InputError, match=r"CUDA_VISIBLE_DEVICES=.* hides every GPU; accepted here: cpu$"):
        choose_device("cuda")


def test_one_visible_gpu_is_used(two_cards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,-1")
    assert str(choose_device()) == "cuda"


def test_a_gpu_that_torch_cannot_use_is_said_aloud(driver: Callable[..., None]) -> None:
    driver(2)
    if torch.cuda.is_available():
        pytest.skip("torch can use a GPU here")
    device = choose_device()
    assert device.type == "cpu"
    assert "nvidia-smi shows 2 NVIDIA GPUs, but torch cannot use them" in device.note
    assert choose_profile() == ("local", device.note)
    with pytest.raises(InputError, match=r"cuda:1 was asked for, but torch finds no GPU here .*; accepted here: cpu$"):
        choose_device("cuda:1")
    assert choose_device("cpu").note == "", "who names the processor needs no advice"


def test_torchs_own_words_say_why(driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update it.")

    driver(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    assert "cannot use it (The NVIDIA driver on your system is too old (found version 11040))" in choose_device().note
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "with CUDA_VISIBLE_DEVICES=7 none is left" in choose_device().note


def test_a_driver_that_does_not_answer_is_said_aloud(driver: Callable[..., None]) -> None:
    driver(0, exit_code=9)
    assert "nvidia-smi does not answer (NVIDIA-SMI has failed because it has no driver)" in choose_device().note


@pytest.mark.slow
def test_the_notes_reach_people(tiny_model: Callable[[str], Path], corpus: Path, tmp_path: Path) -> None:
    path, says = play_driver(tmp_path, 1), "nvidia-smi shows an NVIDIA GPU, but torch cannot use it"
    file = tmp_path / "a.yaml"
    file.write_text(json.dumps(experiment_on(tiny_model("gpt2"), corpus)))
    planned = lorabench("plan", str(file), PATH=path)
    assert says in " ".join(planned.stdout.split())
    as_json = json.loads(lorabench("plan", str(file), "--json", PATH=path).stdout)
    assert any(says in warning for warning in as_json["warnings"])
    assert says in lorabench("doctor", PATH=path).stdout
    ran = lorabench("run", str(file), "--output-dir", str(tmp_path / "out"), "--tracker", "none", PATH=path)
    assert (ran.returncode, says in " ".join(ran.stderr.split())) == (0, True)
    scored = lorabench("evaluate", "--model", str(tiny_model("gpt2")), "--data", str(corpus), PATH=path)
    assert (scored.returncode, says in scored.stderr) == (0, True)
    quiet = lorabench("plan", str(file), "--device", "cpu", PATH=path)
    assert "nvidia" not in quiet.stdout + quiet.stderr


def test_gpus_by_name(two_cards: None) -> None:
    assert choose_device() == Device("cuda", "Card 0", 80 << 30, supports_bf16=True)
    assert str(choose_device("cuda:1")) == "cuda:1"
    assert choose_device("cuda:1").name == "Card 1"
    with pytest.raises(InputError, match=r"torch finds 2 GPUs here; accepted here: cpu, cuda, cuda:0, cuda:1$"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "", "cpu:0", "tpu", "mps:1", 5])
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises(InputError, match=r"device: .* is not accepted; accepted here: cpu"):
        choose_device(name)


def test_apples_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="mps was asked for, but this torch finds no Apple GPU; accepted here: cpu"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 16 << 30)
    device = choose_device("mps")
    assert (str(device), device.memory_bytes, device.supports_bf16) == ("mps", 16 << 30, False)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_wrong_device_is_refused_before_anything_is_planned(tmp_path: Path, command: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(json.dumps({"name": "a", "models": ["gpt2-mini"], "datasets": ["stories"]}))
    done = lorabench(command, str(file), "--device", "cuda:9")
    assert done.returncode == 2
    assert "device: cuda:9 was asked for" in done.stderr
    assert "accepted here: cpu" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_kind_of_device_has_its_sizes() -> None:
    for kind in get_args(DeviceType):
        device = Device(kind, "it", 1 << 34, supports_bf16=False)
        assert 1 <= device.micro_batch(4, 512) <= 4
        assert devices.EVALUATION_TOKENS[kind] >= 2048


def test_the_plan_is_for_the_device_it_is_given(
    tiny_model: Callable[[str], Path], corpus: Path, two_cards: None
) -> None:
    experiment = build_experiment(experiment_on(tiny_model("gpt2"), corpus), where="a.yaml")
    processor = replace(choose_device("cpu"), supports_bf16=False)
    (on_card,), (here,) = make_plan(experiment).runs, make_plan(experiment, processor).runs
    assert (on_card.spec.training.precision, here.spec.training.precision) == ("bf16", "fp32")
    assert (on_card.workload.rows_at_once, here.workload.rows_at_once) == (512, 64)
    assert on_card.run_id != here.run_id
    assert on_card.estimated_seconds == on_card.estimated_gpu_seconds
    assert here.estimated_seconds != here.estimated_gpu_seconds
    assert len({calibration_path(device) for device in (processor, choose_device(), choose_device("cuda:1"))}) == 3


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_checkpoint_holds_the_devices_random_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    states = {kind: torch.tensor([1, 2, 3], dtype=torch.uint8)}
    module = getattr(torch, kind)
    monkeypatch.setattr(module, "get_rng_state", lambda *_: states[kind])
    monkeypatch.setattr(module, "set_rng_state", lambda state, *_: states.update({kind: state}))
    monkeypatch.setattr("lorabench.training.checkpoints._device", lambda parameters: torch.device(kind))
    parameters = {"a": torch.nn.Parameter(torch.ones(3))}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    parameters["a"].sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path, Position(steps_done=1), parameters, optimizer, "key")
    states[kind] = torch.zeros(3, dtype=torch.uint8)
    position, problems = load_checkpoint(tmp_path, parameters, optimizer, "key")
    assert (problems, position is not None) == ([], True)
    assert states[kind].tolist() == [1, 2, 3]
    monkeypatch.setattr("lorabench.training.checkpoints._device", lambda parameters: torch.device("cuda", 1))
    if kind == "mps":
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: states[kind])
        position, problems = load_checkpoint(tmp_path, parameters, optimizer, "key")
        assert position is None, "another kind of device draws other numbers"


def test_sampling_leaves_the_devices_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"mps": torch.tensor([7], dtype=torch.uint8)}
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda *_: states["mps"])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state, *_: states.update(mps=state))
    before = torch.get_rng_state()
    with devices.own_random_state(torch.device("mps")):
        torch.rand(3)
        states["mps"] = torch.tensor([8], dtype=torch.uint8)
    assert torch.equal(torch.get_rng_state(), before)
    assert states["mps"].item() == 7


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_clocks_and_memory_ask_the_device_itself(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    asked: list[tuple[str, object]] = []
    module, where = getattr(torch, kind), torch.device(kind, 1 if kind == "cuda" else 0)
    names = {"cuda": ("synchronize", "empty_cache", "reset_peak_memory_stats", "max_memory_allocated")}.get(
        kind, ("synchronize", "empty_cache", "driver_allocated_memory")
    )
    for name in names:
        monkeypatch.setattr(module, name, lambda *arguments, name=name: asked.append((name, arguments)) or 5)
    devices.synchronize(where)
    devices.release_memory(where)
    devices.reset_peak_memory(where)
    assert devices.peak_memory(where) == 5
    assert {name for name, _ in asked} == set(names)
    if kind == "cuda":
        assert {arguments for name, arguments in asked if name != "empty_cache"} == {(where,)}
