"""`benchmarks/gpu_check.sh`, without a GPU: every part once, and what becomes of one that is broken."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ON_THE_MACHINE = ("torch", "transformers", "peft", "matplotlib", "pandas", "pyarrow", "scipy")
CARRIED = ("pydantic", "platformdirs", "rensa", "plotly")
GUARD = """
import importlib.metadata, re, socket, sys
from importlib.machinery import PathFinder
ALLOWED = {allowed}
OWNERS = importlib.metadata.packages_distributions()

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        owners = [re.sub("[-_.]+", "-", owner).lower() for owner in OWNERS.get(name, [])]
        missing = owners and not ALLOWED.intersection(owners)
        return None if missing else PathFinder.find_spec(name, path, target)

def refuse(*_):
    raise OSError("there is no network")

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
socket.socket.connect = refuse
"""
"""Of Python's installed packages it leaves those that the machine has and those that were carried there."""


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_check")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_check_parts")


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_parts_fit_into_ten_minutes_and_are_those_that_there_are(check: ModuleType, parts: ModuleType) -> None:
    untimed = [check.LIMITS[name] for name in check.UNTIMED]
    assert sum(check.LIMITS.values()) - sum(untimed) + max(untimed) <= 600
    assert list(check.LIMITS) == list(parts.PARTS)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; print('half'); os.abort()", "exit code -6"),
        ("import sys; sys.exit('no driver')", "exit code 1: no driver"),
        ("print('half a part')", "it said nothing"),
        ("""print('{"problems": ["1e-3 apart"]}')""", "1e-3 apart"),
    ],
)
def test_a_broken_part_fails(check: ModuleType, code: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert not check.run_part("speed", _python(code), 20.0)
    *_, verdict, values = capfd.readouterr().out.splitlines()
    assert verdict.startswith("FAIL speed (")
    assert json.loads(values)["ok"] is False
    assert json.loads(values)["problems"][0].startswith(reason)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_part_that_hangs_is_ended_with_what_it_started(
    check: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hang = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    started = time.monotonic()
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hang!r}])"
    assert not check.run_part("bench", _python(code), 2.0)
    assert time.monotonic() - started < 20
    assert "took longer than 2 seconds" in capfd.readouterr().out
    child = int((tmp_path / "pid").read_text())
    while _lives(child):
        assert time.monotonic() - started < 20
        time.sleep(0.02)


def test_the_other_parts_are_done_and_the_check_fails(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "parts.py"
    script.write_text('import sys; print(\'{"problems": [], "found": 1}\') if sys.argv[1] != "bench" else sys.exit(1)')
    monkeypatch.setattr(check, "PARTS", script)
    for asked, code, last in (
        ([], 1, "failed: bench"),
        (["equality", "nf4"], 0, "every part is ok"),
    ):
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu", "--tiny", *asked])
        assert check.main() == code
        printed = capfd.readouterr().out.splitlines()
        assert printed[-1] == last
        done = [json.loads(line)["part"] for line in printed if line[0] == "{"]
        assert sorted(done) == sorted(asked or check.LIMITS)
        assert asked or (done[0], *done[-3:]) == ("environment", "speed", "bench", "peer")


def test_without_a_gpu_it_says_so(check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(check, "_has_gpu", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert check.main() == 2
    assert "torch finds no GPU here" in capsys.readouterr().err


@pytest.mark.slow
def test_a_wrong_gradient_is_seen(parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from lorabench.fast.choice import kernels_for

    kernels = type(kernels_for("cpu"))
    multiply = kernels.multiply
    monkeypatch.setattr(parts, "LENGTHS", ((20, 11), (30,)))
    machine = parts.Machine(torch.device("cpu"), tiny=True)
    assert parts.equality_of("gpt2", machine).problems == []
    monkeypatch.setattr(kernels, "multiply", lambda *given: [1.001 * product for product in multiply(*given)])
    problems = parts.equality_of("gpt2", machine).problems
    assert any(problem.startswith("gpt2: PEFT is ") for problem in problems)


def test_what_the_machine_lacks_is_said(parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("rensa", "bitsandbytes") else name)
    machine = parts.Machine(torch.device("cpu"), tiny=True)
    assert "needs rensa, which" in parts.killed_run(machine).values["skipped"]
    assert "bitsandbytes" in parts.nf4(machine).values["skipped"]


@pytest.mark.slow
def test_every_part_is_done_with_what_the_machine_has_and_no_network(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(GUARD.format(allowed=_with_what_they_need(*ON_THE_MACHINE, *CARRIED)))
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}
    command = ["bash", str(BENCHMARKS / "gpu_check.sh"), "--device", "cpu", "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    found = {value["part"]: value for value in (json.loads(line) for line in lines if line.startswith("{"))}
    assert set(found) == {"environment", "equality", "speed", "bench", "peer", "run", "nf4"}
    assert {key.split()[0] for key in found["equality"]} >= {"gpt2", "llama"}
    assert sum(line.startswith("ok   ") for line in lines) == len(found)
    assert all(value["ok"] for value in found.values())
    assert found["run"]["num_resumed"] == 1
    assert found["run"]["killed_after"] >= 1
    assert found["peer"]["ratio"] > 0
    assert {row["text"] for row in found["speed"]["rows"]} == {"windows", "stories", "web"}
    assert "skipped" in found["nf4"] or found["nf4"]["PEFT"][0] <= 1e-2


def _with_what_they_need(*names: str) -> set[str]:
    """Distributions, those that they depend on included, by their normalised names."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = re.sub("[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        left += [re.match(r"[\w.-]+", need)[0] for need in needed if "extra ==" not in need]  # type: ignore[index]
    return found
