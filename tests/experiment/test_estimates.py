from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from lorabench.core.cards import CARDS, find_card
from lorabench.core.device import Device, choose_device
from lorabench.core.device_rates import DeviceRates, measure_rates
from lorabench.core.machine import num_cores
from lorabench.core.probe import multiply_adds_per_core
from lorabench.experiment import calibration
from lorabench.experiment import estimates as estimate
from lorabench.experiment.calibration import calibrate, calibration_path, keep, measured_rates
from lorabench.experiment.estimates import estimate_run, remember_speed, training_multiply_adds
from lorabench.experiment.workload import Workload
from lorabench.methods.settings import AdapterSettings
from lorabench.models.planning import plan_model

CPU = choose_device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "cache"))


def workload(model: str, **changes: object) -> Workload:
    values: dict[str, object] = {
        "context_length": 512,
        "precision": "fp32",
        "evaluation_tokens": 20_000,
        "train_tokens": 100_000,
        "adapter": AdapterSettings(rank=16),
        "target_modules": tuple(plan_model(model).shape.linears),
        "rows_at_once": 2,
    }
    return Workload(**{**values, **changes})  # type: ignore[arg-type]


def test_the_machine_is_probed_once_and_again_when_that_is_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = plan_model("gpt2").shape
    first = estimate_run(shape, workload("gpt2"), CPU).seconds
    path = calibration_path(CPU)
    kept = json.loads(path.read_text())["values"]["probe"]
    assert 1e8 < kept["rate"] < 1e14
    assert estimate_run(shape, workload("gpt2"), CPU).seconds == first
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * estimate.PROBE_LIFE_SECONDS)
    estimate_run(shape, workload("gpt2"), CPU)
    assert json.loads(path.read_text())["values"]["probe"]["at"] > kept["at"]


@pytest.mark.slow
def test_a_busy_machine_is_no_slower_machine() -> None:
    """Processor time of one core: with every core kept busy by others the probe finds what it finds alone."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * num_cores())]
    try:
        under_load = multiply_adds_per_core()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert 0.7 < under_load / multiply_adds_per_core() < 1.4


@pytest.mark.parametrize("content", ["", "[]", "{", '{"probe": 3}'])
def test_a_damaged_calibration_is_made_again(content: str) -> None:
    path = calibration_path(CPU)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert estimate_run(plan_model("gpt2").shape, workload("gpt2"), CPU).seconds > 0


def test_what_was_seen_is_what_is_estimated() -> None:
    shape, work = plan_model("gpt2").shape, workload("gpt2")
    remember_speed(shape, work, 1000.0, 3000.0, CPU)
    assert estimate_run(shape, work, CPU).seconds == pytest.approx(
        100_000 / 1000 + 20_000 / 3000 + estimate.FIXED_SECONDS, rel=1e-6
    )
    other = workload("gpt2", adapter=AdapterSettings(rank=64), context_length=1024)
    expected = 100_000 / 1000 * training_multiply_adds(shape, other) / training_multiply_adds(shape, work)
    assert estimate_run(shape, other, CPU).seconds > expected
    before = estimate_run(plan_model("pythia-410m").shape, workload("pythia-410m"), CPU).seconds
    remember_speed(shape, work, None, 3000.0, CPU)
    assert estimate_run(plan_model("pythia-410m").shape, workload("pythia-410m"), CPU).seconds == before


def test_memory_grows_with_what_needs_it() -> None:
    shape = plan_model("smollm2-135m").shape

    def memory(**changes: object) -> int:
        return estimate_run(shape, workload("smollm2-135m", **changes), CPU).memory_bytes

    plain = memory()
    assert 1.5e9 < plain < 2.5e9, "1.99 GB were measured"
    assert memory(rows_at_once=4) > plain
    assert memory(precision="bf16") < 0.75 * plain
    assert memory(adapter=AdapterSettings(rank=64)) > plain
    assert plain < memory(adapter=AdapterSettings(method="dora")) < 1.5 * plain
    assert memory(adapter=AdapterSettings(method="dora", dropout=0.1)) > 1.5 * plain
    assert memory(adapter=AdapterSettings(method="full"), target_modules=()) > memory(
        adapter=AdapterSettings(method="pissa")
    )


def test_planning_stays_instant_on_a_machine_never_seen(tmp_path: Path) -> None:
    code = (
        "import os, sys; "
        "from lorabench.core.device import choose_device; from lorabench.models.planning import plan_model; "
        "from lorabench.experiment.estimates import _probed_rate; plan_model('gpt2'); _probed_rate(choose_device()); "
        "print('torch' in sys.modules, sum(os.times()[:4]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    has_torch, seconds = done.stdout.split()
    assert has_torch == "False"
    assert float(seconds) < 5.0, "of processor time: a second or two"


H100 = Device("cuda", "NVIDIA H100 80GB HBM3", 80 * 10**9, supports_bf16=True)
MEASURED = DeviceRates(bf16=350e12, fp16=340e12, fp32=25e12, bytes_per_second=2.5e12, launch_seconds=4e-6)


def record_rates(device: Device, rates: DeviceRates, torch_version: str = torch.__version__) -> None:
    keep(device, "rates", {"torch": torch_version, "values": asdict(rates)})


def test_a_card_that_was_calibrated_is_estimated_by_what_was_measured() -> None:
    shape = plan_model("gemma-2b").shape
    work = workload("gemma-2b", precision="bf16", context_length=1024, rows_at_once=16)
    published = estimate_run(shape, work, H100).seconds
    assert published == estimate_run(shape, work, CARDS["H100"].device).seconds, "the card is known by its full name"
    record_rates(H100, MEASURED)
    known = estimate_run(shape, work, H100).seconds
    assert known != published
    record_rates(H100, DeviceRates(*(0.5 * rate for rate in (350e12, 340e12, 25e12, 2.5e12)), 8e-6))
    slower = estimate_run(shape, work, H100).seconds
    assert slower - estimate.FIXED_SECONDS == pytest.approx(2 * (known - estimate.FIXED_SECONDS))
    other = replace(H100, name="NVIDIA L4")
    assert estimate_run(shape, work, other).seconds == estimate_run(shape, work, CARDS["L4"].device).seconds
    remember_speed(shape, work, 50_000.0, 150_000.0, H100)
    seen = 100_000 / 50_000 + 20_000 / 150_000 + estimate.FIXED_SECONDS
    assert estimate_run(shape, work, H100).seconds == pytest.approx(seen), "a run of the model tells more"


def test_a_small_model_waits_for_the_processor() -> None:
    shape = plan_model("gpt2-mini").shape
    work = workload("gpt2-mini", precision="bf16", context_length=64, rows_at_once=1, evaluation_tokens=0)
    record_rates(H100, MEASURED)
    steps = 100_000 / 64
    asked = steps * shape.num_layers * estimate.LAYER_LAUNCHES["training"] * MEASURED.launch_seconds
    assert estimate_run(shape, work, H100).seconds == pytest.approx(asked + estimate.FIXED_SECONDS, rel=0.05)


def test_gpus_that_share_a_run_train_it_in_a_share_of_the_time() -> None:
    shape, work = plan_model("gpt2").shape, workload("gpt2", precision="bf16", evaluation_tokens=0)
    alone = estimate_run(shape, work, H100).seconds - estimate.FIXED_SECONDS
    shared = estimate_run(shape, replace(work, sharing=4), H100).seconds - estimate.FIXED_SECONDS
    assert shared == pytest.approx(alone / 4)
    remember_speed(shape, replace(work, sharing=4), 80_000.0, 60_000.0, H100)
    assert estimate_run(shape, work, H100).seconds == pytest.approx(100_000 / 20_000 + estimate.FIXED_SECONDS)


def test_a_gpu_is_measured_once_and_again_with_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[torch.device, bool]] = []

    def measure(device: torch.device, *, with_bf16: bool) -> DeviceRates:
        measured.append((device, with_bf16))
        return MEASURED

    monkeypatch.setattr(calibration, "measure_rates", measure)
    calibrate(CPU)
    assert not measured
    for _ in range(2):
        calibrate(replace(H100, index=1))
        assert measured == [(torch.device("cuda:1"), True)]
    assert measured_rates(H100) == MEASURED
    record_rates(H100, MEASURED, "2.10.0")
    calibrate(H100)
    assert len(measured) == 2


def test_rates_are_measured_within_seconds() -> None:
    started = time.perf_counter()
    rates = measure_rates(torch.device("cpu"), size=64, num_bytes=1 << 16)
    assert time.perf_counter() - started < 20.0, "two where nothing else runs"
    assert 1e6 < rates.fp32 < 1e14
    assert 1e6 < rates.bf16 < 1e14
    assert 1e6 < rates.bytes_per_second < 1e13
    assert 1e-8 < rates.launch_seconds < 1e-2
    assert measure_rates(torch.device("cpu"), size=64, num_bytes=1 << 16, with_bf16=False).bf16 == 0.0


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA RTX A6000", "A6000"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("H100", "H100"),
    ],
)
def test_a_card_is_found_by_what_its_driver_calls_it(name: str, card: str | None) -> None:
    found = find_card(name)
    assert (found.name if found else None) == card
