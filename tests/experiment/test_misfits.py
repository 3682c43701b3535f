"""What does not fit is said, with settings that help: each is taken at its word and planned again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lorabench.cli.main import app
from lorabench.core.cards import CARDS
from lorabench.core.device import Device, choose_device
from lorabench.experiment.misfits import find_misfits
from lorabench.experiment.plan import Plan, make_plan
from lorabench.experiment.schema import build_experiment

T4 = CARDS["T4"].device
LARGER = replace(T4, memory_bytes=18 * 10**9)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "cache"))


def planned(device: Device, settings: dict[str, Any] | None = None, **training: Any) -> Plan:
    values: dict[str, Any] = {"base": {}, "training": {"context_length": 1024, "precision": "bf16", **training}}
    for key, value in (settings or {}).items():
        section, name = key.split(".")
        values[section][name] = value
    whole = {"name": "q", "models": ["gemma-2b", "gpt2"], "datasets": ["stories"], "seeds": [0, 1], **values}
    return make_plan(build_experiment(whole), device)


def test_each_remedy_is_enough() -> None:
    asked = {"batch_size": 16, "micro_batch_size": 16, "gradient_checkpointing": False}
    (misfit,) = find_misfits(planned(LARGER, **asked))
    assert misfit.model == "gemma-2b"
    assert len(misfit.run_ids) == 2
    assert misfit.memory_bytes > LARGER.memory_bytes
    assert {key for remedy in misfit.remedies for key in remedy.settings} == {
        "training.micro_batch_size", "training.gradient_checkpointing", "training.context_length",
    }  # fmt: skip
    for remedy in misfit.remedies:
        again = planned(LARGER, remedy.settings, **asked)
        assert find_misfits(again) == []
        assert max(run.estimated_memory_bytes for run in again.runs) == remedy.memory_bytes


def test_where_none_is_enough_alone_several_are() -> None:
    small = replace(T4, memory_bytes=5 * 10**9)
    misfit, *_ = find_misfits(planned(small))
    (remedy,) = misfit.remedies
    assert remedy.settings == {"base.quantization": "nf4"}, "few rows and checkpointing were taken already"
    asked = {"batch_size": 16, "micro_batch_size": 16, "gradient_checkpointing": False}
    misfit, *_ = find_misfits(planned(small, **asked))
    (remedy,) = misfit.remedies
    assert {"base.quantization", "training.micro_batch_size"} <= remedy.settings.keys()
    assert find_misfits(planned(small, remedy.settings, **asked)) == []


def test_a_device_that_is_too_small_for_anything() -> None:
    found = find_misfits(planned(replace(T4, memory_bytes=10**8)))
    assert [(misfit.model, misfit.remedies) for misfit in found] == [("gemma-2b", ()), ("gpt2", ())]


def test_the_plan_says_so_for_this_machine_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(
        "name: q\nmodels: [gemma-2b]\ndatasets: [stories]\nadapter: {rank: [8, 16]}\n"
        "training: {context_length: 1024, precision: bf16, micro_batch_size: 16, gradient_checkpointing: false}\n"
    )
    here = replace(choose_device("cpu"), memory_bytes=18 * 10**9)
    monkeypatch.setattr("lorabench.runs.place.choose_device", lambda name=None: here)
    said = CliRunner().invoke(app, ["plan", str(path)]).output
    assert "memory: not expected to fit into the 18.0 GB of this machine: 2 runs of gemma-2b, up to " in said
    assert "training.gradient_checkpointing: true (" in said
    said = CliRunner().invoke(app, ["plan", str(path), "--set", "training.gradient_checkpointing=auto"]).output
    assert "memory: 2 runs of gemma-2b with gradient checkpointing, a third more work: without it the 18.0 GB" in said
    assert "not expected to fit" not in said
