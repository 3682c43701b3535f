"""`deploy:` of an experiment: once its runs are done, the recommended run of each corpus is deployed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorabench.analysis.findings import Findings
from lorabench.analysis.recommendations import recommended_run
from lorabench.core.errors import LorabenchError
from lorabench.core.progress import View
from lorabench.deploy.deployment import deploy_run
from lorabench.deploy.planning import left_out
from lorabench.deploy.wanted import make_forms
from lorabench.experiment.deploy import DeploySettings
from lorabench.experiment.schema import Experiment
from lorabench.records.deployment import Constraints
from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore
from lorabench.report.build import build_report, findings_of
from lorabench.runs.outcome import Outcome
from lorabench.runs.scheduler import run_experiment
from lorabench.runs.view import RunView


def run_and_deploy(experiment: Experiment, output_dir: Path | str, *, view: RunView, **options: Any) -> Outcome:
    """Do what is missing of the experiment, then of its deployments; `options` as for runs.scheduler.run_experiment.

    Raises as `run_experiment` and `make_forms`, before anything is done.
    """
    if experiment.deploy is not None:
        make_forms(experiment.deploy.forms, experiment.deploy.device)
    outcome = run_experiment(experiment, output_dir, view=view, **options)
    if experiment.deploy is not None:
        with view as shown:
            deploy_recommended(experiment.deploy, outcome, RecordStore(Path(output_dir)), shown)
    return outcome


def recommended_runs(findings: Findings, records: Sequence[RunRecord]) -> tuple[list[str], list[str]]:
    """The run to deploy of each corpus, and a sentence on each corpus without one."""
    chosen, sentences = [], []
    for recommendation in findings.recommendations:
        if (run_id := recommended_run(recommendation, findings, records)) is not None:
            chosen.append(run_id)
        else:
            reason = "test speaks against the choice" if recommendation.is_withdrawn else "nothing is recommended"
            sentences.append(f"{recommendation.corpus}: {reason}, so nothing is deployed")
    return list(dict.fromkeys(chosen)), sentences


def deploy_recommended(settings: DeploySettings, outcome: Outcome, store: RecordStore, view: View) -> None:
    """Deploy the recommended run of each corpus and rebuild the report; one that cannot be deployed stops no other.

    Nothing where the runs were cancelled, or none has a record.
    """
    if outcome.cancelled or not outcome.records:
        return
    run_ids, sentences = recommended_runs(findings_of(outcome.records, store), outcome.records)
    for sentence in (*sentences, *left_out(settings)):
        view.message(sentence)
    constraints = Constraints(
        max_memory_bytes=settings.max_memory, max_disk_bytes=settings.max_disk, min_decode=settings.min_decode
    )
    for run_id in run_ids:
        view.message(f"deploying {run_id}")
        try:
            outcome.deployments += deploy_run(
                run_id,
                store.output_dir,
                forms=settings.forms,
                num_rounds=settings.rounds,
                threads=settings.threads,
                device=settings.device,
                constraints=constraints,
                is_strict=False,
                view=view,
            )
        except LorabenchError as problem:
            outcome.undeployed.append(f"{run_id} was not deployed: {problem}")
    if run_ids:
        view.phase("report")
        outcome.problems = build_report(store).problems
