"""Runs come back from a W&B server as they were tracked, through W&B's own uploader and public API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorabench.core.errors import DownloadError, InputError
from lorabench.records.schema import RunRecord
from lorabench.trackers.base import TrackedRun, evaluation_values
from lorabench.trackers.make import make_trackers
from lorabench.trackers.pull_wandb import metrics_line, parse_project, pull_wandb, safe_name

from .conftest import step_values
from .fake_wandb import KEY, FakeWandb, Run

_PULL = """
import json, sys
from pathlib import Path
from lorabench.core.errors import LorabenchError
from lorabench.trackers.pull_wandb import pull_wandb
said = []
try:
    pulled = pull_wandb(sys.argv[1], Path(sys.argv[2]), progress=lambda *words: said.append(words))
except LorabenchError as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}))
else:
    print(json.dumps({"runs": [[run.name, str(run.folder), run.num_steps, run.num_evaluations] for run in pulled],
                      "said": said}))
"""


def _in_new_process(server: FakeWandb, tmp_path: Path, *command: str) -> str:
    """W&B reads its server's address once in a process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= server.environment | {
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
    }
    finished = subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def _pull(server: FakeWandb, project: str, tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_in_new_process(server, tmp_path, "-c", _PULL, project, str(tmp_path / "out")))
    return found


@pytest.mark.slow
def test_an_offline_run_can_be_synced_later_and_pulled_back(
    tracked_run: TrackedRun, record: RunRecord, tmp_path: Path
) -> None:
    assert record.validation is not None
    with make_trackers("wandb", tmp_path, report=pytest.fail) as group:
        for attempt in (1, 2):
            run = replace(tracked_run, attempt=attempt, folder=tmp_path / f"own-{attempt}")
            group.start(run)
            for step in range(1, 31):
                group.log_step(step_values(step) | {"loss": attempt / step})
                if step % 10 == 0:
                    group.log_evaluation(evaluation_values(step, 512 * step, record.validation))
            group.finish(record)
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    with FakeWandb() as server:
        _in_new_process(server, tmp_path, "-m", "wandb", "sync", *map(str, folders))
        assert [run.exit_code for run in server.runs.values()] == [0, 0]
        found = _pull(server, "somebody/lorabench", tmp_path)
    assert len(found["runs"]) == 2
    for name, folder, num_steps, num_evaluations in found["runs"]:
        assert (num_steps, num_evaluations) == (30, 3)
        own = tmp_path / ("own-2" if name.endswith("#2") else "own-1") / "metrics.jsonl"
        pulled = (Path(folder) / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in pulled] == [json.loads(line) for line in own.read_text().splitlines()]
        facts = json.loads((Path(folder) / "run.json").read_text())
        assert facts["config"]["learning_rate"] == 1e-3
        assert facts["config"]["model"] == "tiny-model"
        assert facts["group"] == tracked_run.group
        assert facts["job_type"] == "first-look"
        assert "completed" in facts["tags"]
        assert record.test is not None
        assert facts["summary"]["test_bits_per_byte"] == pytest.approx(record.test.bits_per_byte)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.alone
@pytest.mark.slow
def test_a_run_tracked_online_arrives_while_it_runs(tmp_path: Path) -> None:
    with FakeWandb() as server:
        _in_new_process(server, tmp_path, "-W", "error::DeprecationWarning", "-c", _TRACK, str(tmp_path / "out"))
        (run,) = server.runs.values()
    assert [row["train/step"] for row in run.history if "train/step" in row] == list(range(1, 41))
    assert run.exit_code == 0
    assert "completed" in run.tags
    assert not list((tmp_path / "out" / "wandb").glob("offline-run-*"))
    assert server.keys != {""}


_TRACK = """
import sys
from pathlib import Path
from lorabench.methods.settings import AdapterSettings
from lorabench.experiment.schema import EvaluationSettings, RunSpec, TrainingSettings
from lorabench.trackers.base import TrackedRun
from lorabench.trackers.make import make_trackers

output, said = Path(sys.argv[1]), []
spec = RunSpec(model="m", model_revision="1", dataset="d", dataset_revision="1", adapter=AdapterSettings(),
               training=TrainingSettings(precision="fp32"), evaluation=EvaluationSettings(), seed=0)
with make_trackers("wandb", output, report=said.append) as group:
    group.start(TrackedRun("run", 1, "experiment", spec, output / "runs" / "run"))
    for step in range(1, 41):
        group.log_step({"step": step, "loss": 1.0 / step})
    group.finish(None, "completed")
assert said == [], said
"""


@pytest.mark.alone
@pytest.mark.slow
def test_a_server_that_stops_answering_costs_a_bounded_time(tmp_path: Path) -> None:
    program = _TRACK.replace("output, said", "import lorabench.trackers.kinds.wandb as wandb_tracker\noutput, said")
    program = program.replace("spec = ", "wandb_tracker.FINISH_SECONDS = 2.0\nspec = ").replace(
        'group.finish(None, "completed")', 'input(); group.finish(None, "completed")'
    )
    program = program.replace("assert said == [], said", "print(said[0])")
    with FakeWandb() as server:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            env=environment | server.environment | {"WANDB_CONFIG_DIR": str(tmp_path / "config")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not server.runs and time.monotonic() < deadline:
            time.sleep(0.05)
        server.stall_seconds = 600.0
        started = time.monotonic()
        output, _ = process.communicate("\n", timeout=120)
        assert process.returncode == 0
        assert time.monotonic() - started < 20
    folder = output.split("wandb sync ")[1].strip()
    assert "has not taken everything" in output
    assert list(Path(folder).glob("run-*.wandb"))


def test_hostile_names_stay_inside_the_folder(tmp_path: Path) -> None:
    with FakeWandb() as server:
        for name in ("../../escape", "a", "b/../../c", "x" * 300):
            row = {"_step": 0, "loss": 1.0, "text": "<script>"}
            server.runs[name] = Run(name, display_name="<b>" + name, history=[row], exit_code=0)
        found = _pull(server, "lorabench", tmp_path)
    root = tmp_path / "out" / "wandb_pulled" / "somebody" / "lorabench"
    assert len(found["runs"]) == 4
    assert {Path(folder).parent for _, folder, *_ in found["runs"]} == {root}
    assert len(list(root.iterdir())) == 4
    assert json.loads((root / "a" / "metrics.jsonl").read_text()) == {
        "kind": "other",
        "step": 0,
        "loss": 1.0,
        "text": "<script>",
    }
    assert found["said"][0] == ["pulling lorabench from W&B", 0, 4]
    assert found["said"][-1] == ["pulling lorabench from W&B", 4, 4]


def test_a_project_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with FakeWandb() as server:
        found = _pull(server, "somebody/elsewhere", tmp_path)
    assert found == {
        "error": "UnknownNameError",
        "text": "somebody/elsewhere: W&B has no such project that this key can see",
    }


def test_without_a_key_nobody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="set WANDB_API_KEY"):
        pull_wandb("somebody/lorabench", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("project", ["", "a/b/c", "..", "a/..", "a\x00b", "a#b", "x" * 129, "/a"])
def test_impossible_projects_are_refused(project: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a W&B project"):
        pull_wandb(project, tmp_path)


def test_names_become_paths_one_to_one() -> None:
    assert parse_project("somebody/some thing") == ("somebody", "some thing")
    assert safe_name("022ed17fa6-1-8eda3f") == "022ed17fa6-1-8eda3f"
    names = ["a b", "a-b", "a/b", "..", "", "ä", "a" * 100, "a" * 101]
    assert len({safe_name(name) for name in names}) == len(names)
    assert all(set(safe_name(name)) <= set("abun-.r0123456789cdef") for name in names)


def test_rows_become_lines() -> None:
    assert metrics_line({"_step": 3, "train/step": 4, "train/loss": 1.0, "train/tokens": 9, "_runtime": 1.0}) == {
        "kind": "step",
        "step": 4,
        "loss": 1.0,
        "train_tokens": 9,
    }
    assert metrics_line({"validation/step": 4, "validation/train_tokens": 9, "validation/loss": float("nan")}) == {
        "kind": "evaluation",
        "step": 4,
        "train_tokens": 9,
        "validation_loss": None,
    }
    assert metrics_line({"_step": 5, "samples": {"_type": "table-file"}, "_timestamp": 1.0}) is None


@pytest.mark.parametrize(
    ("project", "exit_code", "sentence"),
    [
        ("a/b/c", 2, "is not a W&B project"),
        ("..", 2, "is not a W&B project"),
        ("team/project", 1, "W&B has no key here"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_sentence(
    project: str, exit_code: int, sentence: str, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-m", "lorabench", "pull-wandb", project, "--output-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"WANDB_CONFIG_DIR": str(tmp_path / "config"), "NETRC": str(tmp_path / "none")},
    )
    assert done.returncode == exit_code
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("lorabench: ")
    assert sentence in line
