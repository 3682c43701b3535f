from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorabench.core.device import choose_device
from lorabench.experiment import estimates as estimate
from lorabench.experiment.estimates import Workload, estimate_run, remember_speed, training_multiply_adds
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
    started = time.perf_counter()
    first = estimate_run(shape, workload("gpt2"), CPU).seconds
    assert time.perf_counter() - started < 3.0
    path = estimate._calibration_path(CPU)
    kept = json.loads(path.read_text())["values"]["probe"]
    assert 1e8 < kept["rate"] < 1e14
    assert estimate_run(shape, workload("gpt2"), CPU).seconds == first
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * estimate.PROBE_LIFE_SECONDS)
    estimate_run(shape, workload("gpt2"), CPU)
    assert json.loads(path.read_text())["values"]["probe"]["at"] > kept["at"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"probe": 3}'])
def test_a_damaged_calibration_is_made_again(content: str) -> None:
    path = estimate._calibration_path(CPU)
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
    assert memory(adapter=AdapterSettings(method="dora")) > 1.5 * plain
    assert memory(adapter=AdapterSettings(method="full"), target_modules=()) > memory(
        adapter=AdapterSettings(method="pissa")
    )


def test_planning_stays_instant_on_a_machine_never_seen(tmp_path: Path) -> None:
    code = (
        "import sys, time; start = time.perf_counter(); "
        "from lorabench.core.device import choose_device; from lorabench.models.planning import plan_model; "
        "from lorabench.experiment.estimates import _probed_rate; plan_model('gpt2'); _probed_rate(choose_device()); "
        "print('torch' in sys.modules, time.perf_counter() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    has_torch, seconds = done.stdout.split()
    assert has_torch == "False"
    assert float(seconds) < 5.0, "well under a second where nothing else runs"
