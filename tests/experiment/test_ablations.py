"""The experiments that the package brings for what the literature claims: planned as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorabench.core.device import choose_device
from lorabench.experiment.plan import Plan, make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.experiment.shipped import find_shipped


def planned(name: str) -> Plan:
    return make_plan(load_experiment(find_shipped(name)), choose_device("cpu"))


@pytest.mark.parametrize(
    ("name", "num_runs", "methods"),
    [
        ("methods", 8 * 3 * 2 * 3, {"lora", "dora", "pissa", "lora_plus", "vera", "miss", "ia3", "full"}),
        ("lora_plus", (3 + 6) * 2 * 3, {"lora", "lora_plus"}),
        ("full_against_lora", (12 + 4) * 2 * 3, {"lora", "full"}),
        ("quantized_base", 5 * 2 * 2 * 3, {"lora"}),
        ("batch_size", 2 * 3 * 3 * 3, {"lora", "full"}),
        ("targets_at_equal_parameters", 3 * 3 * 2 * 3, {"lora"}),
    ],
)
def test_ablations_are_planned(name: str, num_runs: int, methods: set[str], cache: Path) -> None:
    plan = planned(name)
    assert len({run.run_id for run in plan.runs}) == num_runs
    assert {run.spec.adapter.method for run in plan.runs} == methods
    assert {len(group.runs) * len(plan.groups) for group in plan.groups} == {num_runs}
    if name == "targets_at_equal_parameters":
        counts = [run.trainable_parameters for run in plan.runs]
        assert max(counts) < 1.004 * min(counts)
