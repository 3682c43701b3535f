"""A method from outside, the one of docs/extending.md, with a setting, an optimizer group and a hook of its own."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import model_validator
from safetensors.torch import load_file

import lorabench
from lorabench.core.errors import ConfigError
from lorabench.experiment.identity import run_id
from lorabench.experiment.schema import RunSpec, build_experiment
from lorabench.methods.lora import Lora
from lorabench.methods.registry import METHODS
from lorabench.methods.settings import AdapterSettings
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordProblem, RecordStore, load_records
from lorabench.runs.evaluation import evaluate
from tests.extending import example
from tests.runs.conftest import ExperimentWriter

NAME = "frozen_a"


@pytest.fixture(autouse=True)
def frozen_a() -> Iterator[None]:
    module = ModuleType(NAME)
    exec(compile(example("A method"), "docs/extending.md", "exec", dont_inherit=True), vars(module))
    METHODS.add(NAME, module.METHOD)
    yield
    if NAME in METHODS.all():
        METHODS.remove(NAME)


def factors(out: Path, record: RunRecord) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A and B as they lie on disk, by name."""
    saved = load_file(out / "runs" / record.run_id / "adapter" / "adapter_model.safetensors")
    return tuple({name: value for name, value in saved.items() if f"lora_{part}" in name} for part in "AB")  # type: ignore[return-value]


def test_it_is_planned_run_reported_and_evaluated(
    experiment: ExperimentWriter, corpus: Path, tiny_model: Any, tmp_path: Path
) -> None:
    path = experiment(adapter={"method": NAME, "rank": 2, "max_norm": [0.05, 0.2, 1000]})
    planned = {run.run_id: run for run in lorabench.plan(path).runs}
    assert len(planned) == 3
    out = tmp_path / "out"
    assert lorabench.run(path, out, trackers=["none"]).exit_code == 0
    records = sorted(load_records(out), key=lambda record: record.spec.adapter.max_norm)  # type: ignore[attr-defined]
    first, _, free = (factors(out, record) for record in records)
    assert all(torch.equal(first[0][name], free[0][name]) for name in first[0])
    assert all(value.abs().max() > 0 for value in first[0].values())
    for record in records:
        a, b = factors(out, record)
        limit: float = record.spec.adapter.max_norm  # type: ignore[attr-defined]
        norms = [float(value.norm()) for value in b.values()]
        assert max(norms) <= limit * (1 + 1e-5)
        assert (max(norms) >= limit * (1 - 1e-5)) == (limit < 1)
        assert record.adapter is not None
        trained = sum(value.numel() for value in b.values())
        assert trained == record.adapter.trainable_parameters == planned[record.run_id].trainable_parameters
        assert trained + sum(value.numel() for value in a.values()) == planned[record.run_id].saved_parameters
        assert record.adapter.execution_path == "fast"
    with (out / "results" / "benchmark_results.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["method_settings"] for row in rows} == {"max_norm 0.05", "max_norm 0.2", "max_norm 1000"}
    summary = (out / "results" / "results_summary.md").read_text(encoding="utf-8")
    assert "Best method settings" in summary
    details = (out / "results" / "results_details.md").read_text(encoding="utf-8")
    assert details.count(r"max\_norm 0.05") > 2
    adapter = out / "runs" / records[0].run_id / "adapter"
    options: dict[str, Any] = {"split": "validation", "max_bytes": 1200, "context_length": 32, "precision": "fp32"}
    scored = evaluate(str(tiny_model("smollm2")), corpus, adapter=adapter, **options)
    assert records[0].validation is not None
    assert math.isclose(scored["bits_per_byte"], records[0].validation.bits_per_byte, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (
            {"max_norm": 0.1},
            "adapter.max_norm: unknown key for the method lora; it is a setting of frozen_a. "
            "Accepted with lora: method, rank, alpha, dropout, target_modules",
        ),
        ({"method": ["frozen_a", "dora"], "max_norm": 0.1}, "unknown key for the method dora"),
        ({"method": NAME, "max_nrm": 1}, "adapter.max_nrm: unknown key. Did you mean 'max_norm'?"),
        ({"method": NAME, "max_norm": [1, 0]}, "adapter.max_norm: 0 is not accepted; should be greater than 0"),
        ({"method": "frozn_a"}, "or 'frozen_a'. Did you mean 'frozen_a'?"),
        ({"method": 3}, "adapter.method: 3 is not accepted; should be 'adalora', 'bitfit', 'boft', 'dora', 'eva',"),
        ({"method": []}, "adapter.method: the list is empty"),
        ({"method": True}, "adapter.method: True is not accepted"),
    ],
)
def test_keys_and_values_are_those_of_the_method(adapter: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_experiment({"name": "x", "models": "m", "datasets": "d", "adapter": adapter})
    assert said in str(caught.value)


def test_values_that_do_not_fit_one_another_are_refused() -> None:
    class Narrow(AdapterSettings):
        bits: int = 8

        @model_validator(mode="after")
        def _fits(self) -> Narrow:
            if self.rank % self.bits:
                raise ValueError("Rank should be a multiple of bits")
            return self

    class NarrowLora(Lora):
        settings = Narrow

    METHODS.add("narrow", NarrowLora())
    adapter = {"method": "narrow", "bits": 4, "rank": [8, 12]}
    try:
        values = {"name": "x", "models": "m", "datasets": "d"}
        assert len(build_experiment({**values, "adapter": adapter}).combinations()) == 2
        with pytest.raises(ConfigError, match="adapter: method 'narrow', bits 8, rank 12 is not accepted; rank should"):
            build_experiment({**values, "adapter": {**adapter, "bits": 8}}).combinations()
    finally:
        METHODS.remove("narrow")


def spec(**adapter: Any) -> RunSpec:
    values = {"model": "m", "model_revision": "1", "dataset": "d", "dataset_revision": "1", "evaluation": {}, "seed": 0}
    return RunSpec.model_validate({**values, "adapter": adapter, "training": {"precision": "fp32"}})


def test_its_settings_are_part_of_a_runs_identity() -> None:
    plain = spec(method=NAME, rank=2)
    assert run_id(plain).startswith("m_d_frozen_a-r2-lr")
    assert run_id(spec(method=NAME, rank=2, max_norm=1)) == run_id(plain)
    others = [spec(method=NAME, rank=2, max_norm=2), spec(rank=2), spec(method=NAME)]
    assert len({run_id(plain), *map(run_id, others)}) == 4
    assert RunSpec.model_validate(plain.model_dump(mode="json")) == plain
    assert plain.model_dump(mode="json")["adapter"]["max_norm"] == 1.0


def test_a_record_is_kept_where_its_method_is_missing(experiment: ExperimentWriter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lorabench.run(experiment(adapter={"method": NAME, "rank": 2}), out, trackers=["none"])
    (record,) = load_records(out)
    METHODS.remove(NAME)
    with pytest.raises(RecordProblem, match="what is not installed here: there is no method 'frozen_a'"):
        RecordStore(out).read(record.run_id)
    lorabench.run(experiment(adapter={"rank": 2}), out, trackers=["none"])
    assert (out / "runs" / record.run_id / "record.json").is_file()
