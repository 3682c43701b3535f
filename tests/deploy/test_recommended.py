"""`deploy:` in an experiment: checked before anything runs, planned, and of the run that validation recommends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer.testing

from lorabench.cli.main import app
from lorabench.core.errors import ConfigError, InputError
from lorabench.deploy.planning import plan_deployment
from lorabench.deploy.recommended import deploy_recommended, recommended_runs, run_and_deploy
from lorabench.experiment.deploy import DeploySettings
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import Experiment, build_experiment, load_experiment
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore
from lorabench.report.build import findings_of
from lorabench.runs.outcome import Outcome
from lorabench.runs.view import RunView
from tests.runs.conftest import ExperimentWriter


def experiment_with(deploy: object) -> Experiment:
    return build_experiment({"name": "x", "models": ["gpt2"], "datasets": ["news"], "deploy": deploy})


def test_settings_in_every_spelling() -> None:
    assert experiment_with(None).deploy is None
    assert experiment_with(False).deploy is None
    assert experiment_with(True).deploy == DeploySettings()
    assert experiment_with(["adapter"]).deploy == experiment_with({"forms": "adapter"}).deploy
    asked = experiment_with({"max_memory": "2GB", "min_decode": 20, "rounds": 2})
    assert asked.deploy is not None
    assert asked.deploy.max_memory == 2e9
    assert experiment_with(asked.model_dump(mode="json")["deploy"]) == asked


@pytest.mark.parametrize(
    ("deploy", "sentence"),
    [
        ({"round": 2}, "deploy.round: unknown key. Did you mean 'rounds'"),
        ({"max_disk": "much"}, "deploy.max_disk: 'much' is not accepted; a size is expected"),
        ({"max_disk": True}, "should be a size, such as 800MB"),
        ({"rounds": 0}, "deploy.rounds: 0 is not accepted"),
        ({"min_decode": float("nan")}, "deploy.min_decode: "),
        (3, "deploy: 3 is not accepted; should be true, a list of forms, or a mapping"),
    ],
)
def test_what_means_nothing_is_refused(deploy: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as problem:
        experiment_with(deploy)
    assert sentence in str(problem.value)


def test_a_form_that_there_is_not_is_refused_before_any_run(experiment: ExperimentWriter, tmp_path: Path) -> None:
    asked = load_experiment(experiment(deploy=["merged", "gguf:Q9"]))
    with pytest.raises(InputError, match="gguf:Q9 is not accepted"):
        run_and_deploy(asked, tmp_path / "new", trackers=["none"], view=RunView())
    assert not (tmp_path / "new").exists()


def test_the_plan_says_what_is_deployed(experiment: ExperimentWriter, tmp_path: Path) -> None:
    asked = {"forms": ["merged:fp32", "merged", "merged:bf16"], "rounds": 2}
    path = experiment(deploy=asked)
    planned = make_plan(load_experiment(path))
    shipping = plan_deployment(DeploySettings.model_validate(asked), planned)
    assert shipping.forms == ("merged:fp32", "merged:bf16")
    assert 0 < plan_deployment(DeploySettings(forms=("merged",), rounds=1), planned).seconds < shipping.seconds
    output = typer.testing.CliRunner().invoke(app, ["plan", str(path), "--output-dir", str(tmp_path / "out")]).output
    assert "then the recommended run in 2 forms (merged:fp32, merged:bf16), each timed in 2 rounds: about" in output
    answer = typer.testing.CliRunner().invoke(app, ["plan", str(path), "--json"]).output
    assert json.loads(answer)["deploy"]["forms"] == ["merged:fp32", "merged:bf16"]


def test_the_recommended_run_is_chosen_on_validation(finished: RunRecord, tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "out")
    findings = findings_of([finished], store)
    assert recommended_runs(findings, [finished]) == ([finished.run_id], [])
    assert finished.base_validation is not None
    worse = finished.model_copy(update={"validation": finished.base_validation, "base_validation": finished.validation})
    run_ids, (sentence,) = recommended_runs(findings_of([worse], store), [worse])
    assert not run_ids
    assert sentence == f"{finished.spec.dataset}: nothing is recommended, so nothing is deployed"


def test_a_run_that_cannot_be_deployed_is_named_and_fails_the_command(finished: RunRecord, tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "out")
    (store.run_dir(finished.run_id) / "adapter" / "adapter_model.safetensors").write_bytes(b"damaged")
    outcome = Outcome(records=[finished], num_runs=1)
    assert outcome.exit_code == 0
    deploy_recommended(DeploySettings(forms=("merged",)), outcome, store, RunView())
    assert finished.run_id in outcome.undeployed[0]
    assert outcome.exit_code == 1
