"""The package's front does what the commands do."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lorabench
from lorabench.cli.views.view import make_view
from lorabench.core.errors import ConfigError, InputError
from tests.runs.conftest import corpus, experiment  # noqa: F401 - fixtures

ExperimentWriter = Callable[..., Path]


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lorabench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_the_front_is_complete() -> None:
    assert sorted(lorabench.__all__) == ["__version__", "evaluate", "load_records", "plan", "run"]
    assert all(callable(getattr(lorabench, name)) for name in lorabench.__all__ if name != "__version__")
    assert (Path(lorabench.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_plan_and_run_and_load_records_agree_with_the_commands(
    experiment: ExperimentWriter,  # noqa: F811
    tmp_path: Path,
) -> None:
    path, out = experiment(adapter={"rank": [2, 4]}), tmp_path / "out"
    planned = lorabench.plan(path, ["seeds=3"])
    printed = run_command("plan", path, "--set", "seeds=3", "--json")
    assert printed.returncode == 0, printed.stderr
    shown = json.loads(printed.stdout)
    assert shown.pop("remaining")["num_to_do"] == len(planned.runs)  # of the output folder, which the plan knows not
    assert len(shown.pop("detectable")) == 1  # from what the folder was seen to spread
    assert shown == json.loads(json.dumps(planned.to_json()))

    view = make_view((tmp_path / "progress.txt").open("w", encoding="utf-8"))
    outcome = lorabench.run(path, out, overrides=["seeds=3", "adapter.rank=2"], trackers=["none"], view=view)
    view.console.file.close()
    assert outcome.exit_code == 0
    assert {record.run_id for record in outcome.records} < {run.run_id for run in planned.runs}
    done = run_command("run", path, "--output-dir", out, "--set", "seeds=3", "--tracker", "none")
    assert done.returncode == 0, done.stderr
    assert "1 done before and skipped, 1 to do" in done.stderr

    frame = lorabench.load_records(out)
    assert sorted(frame["run_id"]) == sorted(run.run_id for run in planned.runs)
    with (out / "results" / "benchmark_results.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(frame.columns) == list(rows[0])
    by_id = frame.set_index("run_id")
    for row in rows:
        assert float(row["val_bits_per_byte"]) == by_id.loc[row["run_id"], "val_bits_per_byte"]
        assert row["status"] == by_id.loc[row["run_id"], "status"] == "completed"


@pytest.mark.slow
def test_evaluate_agrees_with_the_command(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    data = tmp_path / "text.jsonl"
    data.write_text('{"body": "One text, naïve."}\n{"body": " another\\n"}\n', encoding="utf-8")
    options = {"context_length": 16, "stride": 4, "text_field": "body"}
    result = lorabench.evaluate(str(tiny_model("gpt2")), data, **options)
    assert lorabench.evaluate(str(tiny_model("gpt2")), data, **options) == result
    done = run_command(
        *("evaluate", "--model", tiny_model("gpt2"), "--data", data, "--context-length", 16),
        *("--stride", 4, "--text-field", "body", "--json"),
    )
    assert json.loads(done.stdout) == result


def test_mistakes_are_the_errors_of_the_commands(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        lorabench.plan(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="no runs here"):
        lorabench.load_records(tmp_path / "none")
    with pytest.raises(InputError, match="no such file"):
        lorabench.evaluate("smollm2-135m-instruct", tmp_path / "none.txt")
    with pytest.raises(InputError):
        lorabench.run(tmp_path / "none.yaml", tmp_path)
