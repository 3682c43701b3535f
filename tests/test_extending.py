"""What docs/extending.md shows works as it stands there, through the commands that users give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lorabench.records.store import load_records
from tests.extending import example, install_plugin
from tests.report.synthetic import SyntheticResults
from tests.runs.conftest import ExperimentWriter, corpus, experiment  # noqa: F401 - fixtures


def lorabench(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lorabench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_report_section(tmp_path: Path) -> None:
    SyntheticResults(tmp_path / "out").grid(models=["small", "lar_ge"], ranks=[8])
    code = example("A report section")
    environment = install_plugin(tmp_path / "site", "lorabench.report.sections", "training_speed", code, "SECTION")
    done = lorabench(environment, "report", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    results = tmp_path / "out" / "results"
    page = (results / "report.html").read_text(encoding="utf-8")
    assert '<a href="#training_speed">Speed</a>' in page
    assert "<h2>Training speed</h2>" in page
    summary = (results / "results_summary.md").read_text(encoding="utf-8")
    assert "### Training speed" in summary.split("Training efficiency")[1]
    assert r"% lar\_ge: " in (results / "results_table.tex").read_text(encoding="utf-8")


def test_a_tracker(tmp_path: Path, experiment: ExperimentWriter) -> None:  # noqa: F811
    environment = install_plugin(
        tmp_path / "site", "lorabench.trackers.kinds", "lines", example("A tracker"), "TRACKER"
    )
    path, out = experiment(adapter={"rank": 2}), tmp_path / "out"
    done = lorabench(environment, "run", path, "--output-dir", out, "--tracker", "lines")
    assert done.returncode == 0, done.stderr
    (record,) = load_records(out)
    lines = (out / "lines.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"start {record.run_id}"
    assert record.validation is not None
    assert any(line.endswith(f": {record.validation.bits_per_byte} bits per byte") for line in lines)
    assert lines[-1] == "finish completed"
    refused = lorabench(environment, "run", path, "--output-dir", out, "--tracker", "linse")
    assert refused.returncode == 2
    assert "accepted are tensorboard, trackio, wandb, lines, none" in refused.stderr
    assert "Did you mean 'lines'?" in refused.stderr
