"""What docs/extending.md shows works as it stands there, through the commands that users give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lorabench.corpora.entry import PREPARATION_VERSION
from lorabench.records.store import load_records
from tests.extending import example, install_plugin
from tests.report.synthetic import SyntheticResults
from tests.runs.conftest import ExperimentWriter, corpus, experiment  # noqa: F401 - fixtures
from tests.runs.test_survival import results


def lorabench(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lorabench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_a_method(tmp_path: Path, experiment: ExperimentWriter) -> None:  # noqa: F811
    """`tests/runs/test_own_method.py` looks at what comes out."""
    environment = install_plugin(tmp_path / "site", "lorabench.methods", "frozen_a", example("A method"), "METHOD")
    path, out = experiment(**yaml.safe_load(example("A method", "yaml"))), tmp_path / "out"
    planned = lorabench(environment, "plan", path)
    assert (planned.returncode, "2 runs" in planned.stdout) == (0, True), planned.stderr
    done = lorabench(environment, "run", path, "--output-dir", out, "--tracker", "none")
    assert done.returncode == 0, done.stderr
    table = (out / "results" / "benchmark_results.csv").read_text(encoding="utf-8")
    assert "max_norm 0.05" in table
    (out / "results" / "benchmark_results.csv").unlink()
    again = lorabench(environment, "report", out)
    assert again.returncode == 0, again.stderr
    assert (out / "results" / "benchmark_results.csv").read_text(encoding="utf-8") == table


@pytest.mark.slow
def test_a_corpus_source(
    tmp_path: Path,
    tiny_model: Callable[[str], Path],
    experiment: ExperimentWriter,  # noqa: F811
) -> None:
    environment = install_plugin(
        tmp_path / "site", "lorabench.corpora.sources", "spelled", example("A corpus source"), "SOURCE"
    )
    (tmp_path / "own.yaml").write_text(example("A corpus source", "yaml"), encoding="utf-8")
    environment["LORABENCH_CATALOG"] = str(tmp_path / "own.yaml")
    listed = lorabench(environment, "datasets")
    assert "spelled-letters" in listed.stdout
    path, out = experiment(datasets=["spelled-letters"], adapter={"rank": 2}), tmp_path / "out"
    planned = lorabench(environment, "plan", path)
    assert (planned.returncode, "spelled-letters" in planned.stdout) == (0, True), planned.stderr
    done = lorabench(environment, "run", path, "--output-dir", out, "--tracker", "none")
    assert done.returncode == 0, done.stderr
    (record,) = load_records(out)
    assert record.spec.dataset_revision == f"spelled-200-letter-prepared-{PREPARATION_VERSION}"
    assert record.dataset is not None
    assert record.dataset.source == "spelled"
    model, exported = tiny_model("smollm2"), tmp_path / "validation.jsonl"
    scored = lorabench(environment, "evaluate", "--model", model, "--data", "spelled-letters", "--max-bytes", 900)
    assert scored.returncode == 0, scored.stderr
    written = lorabench(environment, "datasets", "export", "spelled-letters", "--output", exported)
    assert written.returncode == 0, written.stderr
    assert "letter" in exported.read_text(encoding="utf-8")
    wrong = (tmp_path / "own.yaml").read_text(encoding="utf-8").replace("count: 200", "number: 200")
    (tmp_path / "own.yaml").write_text(wrong, encoding="utf-8")
    refused = lorabench(environment, "plan", path)
    assert refused.returncode == 2
    assert "own.yaml: datasets: spelled-letters: count: Field required" in refused.stderr


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


@pytest.mark.slow
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
    assert lines[-2:] == ["finish completed", f"report {out / 'results' / 'report.html'}"]
    refused = lorabench(environment, "run", path, "--output-dir", out, "--tracker", "linse")
    assert refused.returncode == 2
    assert "accepted are mlflow, tensorboard, trackio, wandb, lines, none" in refused.stderr
    assert "Did you mean 'lines'?" in refused.stderr


@pytest.mark.slow
def test_a_strategy(tmp_path: Path, experiment: ExperimentWriter) -> None:  # noqa: F811
    environment = install_plugin(
        tmp_path / "site", "lorabench.runs.strategies", "better_half", example("A strategy"), "STRATEGY"
    )
    code = (
        "import lorabench, sys\n"
        "options = {'trackers': ['none'], 'strategy': 'better_half'}\n"
        "sys.exit(lorabench.run(sys.argv[1], sys.argv[2], **options).exit_code)"
    )
    path, out = experiment(adapter={"rank": [1, 2, 4]}), tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", code, path, out], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    records = load_records(out)
    assert sorted(record.status.value for record in records) == ["completed", "completed", "stopped_early"]
    half_way = {record.evaluations[0].validation.bits_per_byte: record.status.value for record in records}
    assert half_way[max(half_way)] == "stopped_early"


@pytest.mark.slow
def test_an_executor(tmp_path: Path, experiment: ExperimentWriter) -> None:  # noqa: F811
    environment = install_plugin(
        tmp_path / "site", "lorabench.runs.executors", "processes", example("An executor"), "EXECUTOR"
    )
    path = experiment(adapter={"rank": [1, 2]})
    for name in ("processes", "here"):
        arguments = ["--output-dir", tmp_path / name, "--tracker", "none", "--executor", name]
        done = lorabench(environment, "run", path, *arguments)
        assert done.returncode == 0, done.stderr
    assert results(tmp_path / "processes") == results(tmp_path / "here")
    refused = lorabench(environment, "run", path, "--executor", "procesess")
    assert refused.returncode == 2
    assert "Did you mean 'processes'?" in refused.stderr
