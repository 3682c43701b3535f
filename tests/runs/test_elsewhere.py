"""Plans for devices that are not here: who says what they cost, and how near the scheduler comes to the best order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lorabench.cli.main import app
from lorabench.cli.views.elsewhere import print_elsewhere
from lorabench.core.cards import CARDS, parse_devices_elsewhere
from lorabench.core.device import choose_device
from lorabench.core.errors import InputError
from lorabench.experiment.estimates import estimate_run
from lorabench.experiment.plan import Plan, make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.experiment.workload import Workload
from lorabench.methods.settings import AdapterSettings
from lorabench.models.planning import plan_model
from lorabench.runs.elsewhere import jobs_of, plan_elsewhere
from tests.runs.conftest import ExperimentWriter

FULL = Path(__file__).parents[2] / "configs" / "experiments" / "full.yaml"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORABENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return make_plan(load_experiment(FULL), CARDS["H100"].device)


@pytest.mark.parametrize("num_devices", [1, 4, 16, 64])
def test_the_full_matrix_ends_within_a_tenth_of_the_best_order(full: Plan, num_devices: int) -> None:
    found = plan_elsewhere(full, CARDS["H100"], num_devices, price=2.5)
    seconds = [job.seconds for job in jobs_of(full)]
    assert len(seconds) == 729
    assert found.least_seconds == max(sum(seconds) / num_devices, max(seconds))
    assert found.least_seconds <= found.seconds <= 1.1 * found.least_seconds
    assert found.cost == pytest.approx(2.5 * num_devices * found.seconds / 3600)


def test_all_work_is_in_the_simulation(full: Plan) -> None:
    shared = sum(group.estimated_base_seconds for group in full.groups)
    runs = sum(run.estimated_seconds for run in full.runs)
    assert sum(job.seconds for job in jobs_of(full)) == pytest.approx(shared + runs)


@pytest.mark.parametrize(("model", "milliseconds"), [("gpt2", 41.8), ("pythia-410m", 109.1), ("gemma-2b", 385.7)])
def test_an_estimated_step_takes_what_was_measured(model: str, milliseconds: float) -> None:
    """Of 16 rows of 1,024 tokens in bf16, rank 16, on an H200: docs/results/gpu_h200.md."""
    shape = plan_model(model).shape
    work = Workload(
        context_length=1024,
        precision="bf16",
        evaluation_tokens=0,
        train_tokens=16_384_000,
        adapter=AdapterSettings(rank=16),
        target_modules=tuple(shape.linears),
        rows_at_once=16,
    )
    step = estimate_run(shape, work, CARDS["H200"].device).seconds / 1000
    assert step == pytest.approx(milliseconds / 1000, rel=0.15)


def test_what_does_not_fit_is_named(full: Plan) -> None:
    small = plan_elsewhere(full, CARDS["T4"], 1)
    assert small.too_large
    assert all(full_run.startswith(("gemma-2b", "pythia")) for full_run in small.too_large)
    assert plan_elsewhere(full, CARDS["H200"], 1).too_large == ()


@pytest.mark.parametrize(
    ("text", "count", "name"), [("8xH100", 8, "H100"), ("h100", 1, "H100"), ("2 x rtx 4090", 2, "RTX4090")]
)
def test_devices_as_people_write_them(text: str, count: int, name: str) -> None:
    assert parse_devices_elsewhere(text) == (count, CARDS[name])


@pytest.mark.parametrize("text", ["", "8", "0xH100", "-1xH100", "8xH10", "8xH100xx", "9999999xH100", "x" * 1000])
def test_other_devices_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--on"):
        parse_devices_elsewhere(text)


def test_it_says_what_it_assumes(full: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    print_elsewhere(plan_elsewhere(full, CARDS["L4"], 4, price=0.8), 0.8)
    said = capsys.readouterr().out
    assert "on 4 × L4: about" in said
    assert "at 0.80 a device hour" in said
    assert "an estimate: products at 80% of the published 121 TFLOP/s, all else at 90% of 0.3 TB/s" in said


def test_the_command_plans_for_the_card(experiment: ExperimentWriter) -> None:
    path = str(experiment(training={"context_length": 32, "train_bytes": 6000, "precision": "auto"}))
    values = json.loads(CliRunner().invoke(app, ["plan", path, "--on", "4xL4", "--price", "0.8", "--json"]).output)
    assert values["on"]["cost"] == pytest.approx(0.8 * values["on"]["device_hours"], abs=0.01)
    assert {run["training"]["precision"] for run in values["runs"]} == {"bf16"}
    for wrong in (["--price", "2"], ["--on", "4xL4", "--device", "cpu"], ["--on", "4xL4", "--devices", "cpu:2"]):
        assert isinstance(CliRunner().invoke(app, ["plan", path, *wrong]).exception, InputError)


def test_devices_that_share_each_run_do_fewer_at_once(experiment: ExperimentWriter) -> None:
    training = {"context_length": 32, "train_bytes": 6000, "batch_size": 4, "learning_rate": [1e-3, 2e-3]}
    card = CARDS["L4"]
    alone = make_plan(load_experiment(experiment(training=training)), card.device)
    shared = make_plan(load_experiment(experiment(training={**training, "devices": 2})), card.device)
    assert [run.run_id for run in shared.runs] == [run.run_id for run in alone.runs]
    assert {run.workload.sharing for run in shared.runs} == {2}
    assert shared.runs[0].estimated_seconds < alone.runs[0].estimated_seconds
    assert shared.runs[0].estimated_gpu_seconds == pytest.approx(alone.runs[0].estimated_gpu_seconds, rel=0.05)
    found = plan_elsewhere(shared, card, 2, price=1.0)
    assert found.seconds == plan_elsewhere(shared, card, 3).seconds, "two runs at once need four"
    assert found.seconds > plan_elsewhere(shared, card, 4).seconds
    assert found.cost == pytest.approx(2 * found.seconds / 3600)
    with pytest.raises(InputError, match=r"1 × L4 are fewer than the 2 that share a run"):
        plan_elsewhere(shared, card, 1)


def test_processes_on_one_processor_are_no_faster(experiment: ExperimentWriter) -> None:
    plan = make_plan(
        load_experiment(experiment(training={"context_length": 32, "batch_size": 4, "devices": 2})),
        choose_device("cpu"),
    )
    assert {run.workload.sharing for run in plan.runs} == {1}
