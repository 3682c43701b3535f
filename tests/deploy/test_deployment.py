"""`lorabench deploy`: each form is measured once, in a process of its own, by the run's own text and windows."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from rich.console import Console

from lorabench.cli.views.run_page import show_run
from lorabench.core.errors import InputError, MissingExtraError
from lorabench.core.formatting import bits
from lorabench.deploy.deployment import deploy_run
from lorabench.deploy.export import export_run
from lorabench.records.deployment import DeploymentRecord, DeploymentStore
from lorabench.records.schema import RunRecord, Status
from lorabench.records.store import RecordStore
from lorabench.report.deployment_table import COLUMNS, deployed_runs
from lorabench.runs.view import RunView
from tests.runs.conftest import ExperimentWriter

FORMS = ("merged:fp32", "merged:bf16")


@pytest.mark.slow
def test_a_killed_deployment_goes_on_and_is_reported(
    finished: RunRecord, experiment: ExperimentWriter, tmp_path: Path
) -> None:
    """That of an experiment whose run is finished; `lorabench deploy` asks for the same."""
    out = tmp_path / "out"
    asked = {"forms": list(FORMS), "rounds": 1, "threads": 1, "max_memory": "900GB"}
    path = experiment(adapter={"rank": 2}, deploy=asked)
    command = [sys.executable, "-m", "lorabench", "run", str(path), "--output-dir", "out", "--tracker", "none"]
    first = DeploymentStore(out).form_dir(finished.run_id, "merged:fp32") / "record.json"
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 400
        while not first.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    scored = json.loads(first.read_text())
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records, problems = DeploymentStore(out).read_all()
    assert not problems
    assert {record.form for record in records} == set(FORMS)
    assert all(record.status is Status.COMPLETED and len(record.rounds) == 1 for record in records)
    weights = {record.form: record.rounds[0].weight_bytes for record in records}
    assert 1.9 < weights["merged:fp32"] / weights["merged:bf16"] <= 2.0
    by_form = {record.form: record for record in records}
    assert by_form["merged:fp32"].measured_at == scored["measured_at"]
    _check_figures(by_form, finished)
    folder = out / "deployments" / finished.run_id
    assert "Ship merged:" in done.stdout
    assert "asked for at most 900 GB of memory" in " ".join(done.stdout.split())
    assert not (folder / "workshop").exists()
    assert not list(folder.glob("*/made"))

    constraints = DeploymentStore(out).constraints(finished.run_id)
    asked = {"forms": FORMS, "num_rounds": 1, "threads": 1, "constraints": constraints}
    again = deploy_run(finished.run_id, out, **asked, view=RunView())
    assert [record.measured_at for record in again] == [by_form[form].measured_at for form in FORMS]
    _check_report(finished, out, done.stdout)
    (other,) = deploy_run(finished.run_id, out, **asked | {"forms": FORMS[1:], "threads": 2}, view=RunView())
    assert (other.threads, len(other.rounds)) == (2, 1)
    assert other.rounds != by_form["merged:bf16"].rounds
    assert other.measured_at == by_form["merged:bf16"].measured_at
    export_run(finished.run_id, out, form="merged", to=tmp_path / "exported", view=RunView())
    rounded = by_form["merged:bf16"].validation
    assert rounded is not None
    card = (tmp_path / "exported" / "README.md").read_text()
    assert f"| bits per byte of validation | {bits(rounded.bits_per_byte)} |" in card
    (claimed,) = (
        result.metric_value
        for result in ModelCard(card).data.eval_results
        if (result.dataset_split, result.metric_type) == ("validation", "bits_per_byte")
    )
    assert claimed == pytest.approx(rounded.bits_per_byte, abs=1e-6)
    path = DeploymentStore(out).form_dir(finished.run_id, "merged:bf16") / "validation.parquet"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    (deployed,), problems = deployed_runs([finished], RecordStore(out))
    assert "merged:bf16" not in {standing.record.form for standing in deployed.choice.standings}
    assert "validation.parquet" in problems[0]


def _check_figures(by_form: dict[str, DeploymentRecord], run: RunRecord) -> None:
    """The float32 form scores as the adapter did; the other has another type and other figures."""
    whole, rounded = by_form["merged:fp32"], by_form["merged:bf16"]
    assert run.validation is not None
    assert run.test is not None
    assert whole.validation is not None
    assert whole.test is not None
    assert whole.divergence is not None
    assert rounded.validation is not None
    assert whole.validation.bits_per_byte == pytest.approx(run.validation.bits_per_byte, abs=1e-5)
    assert whole.test.bits_per_byte == pytest.approx(run.test.bits_per_byte, abs=1e-5)
    assert whole.divergence.kl_mean < 1e-7
    assert whole.divergence.top1_agreement == 1.0
    assert rounded.real_types == {"BF16": whole.real_types["F32"]}
    assert 0 < abs(rounded.validation.bits_per_byte - whole.validation.bits_per_byte) < 0.05
    for record in by_form.values():
        assert all(one.decode_tokens_per_second > 0 and one.peak_bytes >= one.resident_bytes for one in record.rounds)


def _check_report(run: RunRecord, out: Path, printed: str) -> None:
    """Terminal, table, page and summary say the same."""
    (deployed,), problems = deployed_runs([run], RecordStore(out))
    assert not problems
    kept = {standing.record.form: standing.gain_kept for standing in deployed.choice.standings}
    assert kept["merged:fp32"] is not None
    assert kept["merged:fp32"].estimate == pytest.approx(1.0, abs=1e-3)
    with (out / "results" / "deployment_results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == COLUMNS
    assert {row["form"] for row in rows} == set(FORMS)
    assert (out / "results" / "figures" / "deployment.svg").is_file()
    assert " ".join(deployed.choice.verdict.split()) in " ".join(printed.split())
    console = Console(width=200, record=True, file=io.StringIO())
    show_run(run, RecordStore(out), console)
    shown = console.export_text()
    assert deployed.choice.verdict in shown
    assert all(form in shown for form in FORMS)
    for name in ("report.html", "results_summary.md"):
        assert deployed.choice.verdict in (out / "results" / name).read_text().replace("\\", "")


def test_what_is_not_there_is_said_before_anything_is_made(finished: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no form 'awq'"):
        deploy_run(finished.run_id, tmp_path / "out", forms=["merged", "awq"], view=RunView())
    if not _has_llama():
        with pytest.raises(MissingExtraError, match=r"lorabench\[gguf\]"):
            deploy_run(finished.run_id, tmp_path / "out", forms=["merged", "gguf:Q8_0"], view=RunView())
    assert not (tmp_path / "out" / "deployments").exists()


def _has_llama() -> bool:
    try:
        import llama_cpp
    except ImportError:
        return False
    return bool(llama_cpp)
