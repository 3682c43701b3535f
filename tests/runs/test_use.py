"""The lines under the recommendation are run as they stand, and the commands as they are typed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import lorabench
from lorabench.records.store import RecordStore
from lorabench.report.build import findings_of
from lorabench.report.page import PAGE_NAME
from lorabench.report.section import Report
from lorabench.report.sections.use import Use, uses
from tests.runs.conftest import ExperimentWriter


def use_of(path: Path) -> tuple[Use, RecordStore]:
    assert lorabench.run(path, "outputs", trackers=["none"]).exit_code == 0
    store = RecordStore(Path("outputs"))
    records, _ = store.read_all()
    (use,) = uses(Report(findings_of(records, store), records, store, ()))
    return use, store


def python(lines: str) -> str:
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_python_and_commands_do_what_they_say(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    use, store = use_of(experiment(adapter={"rank": 4}, seeds=[0, 1]))
    assert len(use.python.splitlines()) == 3
    load, write = use.python.rsplit("\n", 1)
    adapted, base = python("\n".join([load, write, "model = model.unload()", write])).splitlines()
    assert adapted.startswith("Once upon a time")
    assert base != adapted, "the adapter changes what is written"
    page = (store.results_dir / PAGE_NAME).read_text(encoding="utf-8")
    assert "How to use it" in page
    assert "AutoPeftModelForCausalLM.from_pretrained(&#39;outputs/runs/" in page
    export, deploy = use.commands.splitlines()
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(export)], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my-adapter" / "adapter_model.safetensors").is_file()
    assert deploy.startswith("lorabench deploy ")


def test_a_damaged_configuration_gives_no_lines(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    use, store = use_of(experiment(adapter={"rank": 4}, seeds=[0, 1]))
    file = Path(use.path) / "adapter_config.json"
    file.write_bytes(file.read_bytes() + b" ")
    records, _ = store.read_all()
    (again,) = uses(Report(findings_of(records, store), records, store, ()))
    assert again.python == ""


def test_a_whole_model_is_exported_first(
    experiment: ExperimentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    use, _ = use_of(experiment(adapter={"method": "full"}, seeds=[0, 1]))
    assert use.python == ""
    assert "--form merged --to my-model" in use.commands
