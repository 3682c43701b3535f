"""`lorabench export --check`: what is exported is served by another program, whose answers are lorabench's."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lorabench.core.errors import InputError, RunError
from lorabench.deploy.export import export_run
from lorabench.deploy.served import check_served, require_served
from lorabench.deploy.subject import Subject
from lorabench.records.schema import RunRecord
from lorabench.runs.view import RunView

needs_server = pytest.mark.skipif(
    not all(map(find_spec, ("llama_cpp", "sse_starlette"))), reason="the extra gguf is not installed"
)


def exported(run: RunRecord, folder: Path, form: str) -> list[str]:
    """What the command prints."""
    command = [sys.executable, "-m", "lorabench", "export", run.run_id, "--form", form, "--to", "exported", "--check"]
    done = subprocess.run([*command, "--output-dir", "out"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@needs_server
def test_the_server_of_a_gguf_file_answers_alike(finished: RunRecord, tmp_path: Path) -> None:
    *_, last = exported(finished, tmp_path, "gguf:F32")
    assert last.startswith("llama-cpp-python's server gives lorabench's answers to ")


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_transformers_answers_alike(finished: RunRecord, form: str, tmp_path: Path) -> None:
    checked = export_run(
        finished.run_id, tmp_path / "out", form=form, to=tmp_path / "exported", check=True, view=RunView()
    ).checked
    assert checked is not None
    assert checked.startswith("Transformers gives lorabench's answers to ")


def test_a_form_that_no_other_program_is_asked_about_is_refused() -> None:
    with pytest.raises(InputError, match="--check: no other program is asked about merged:nf4; accepted: adapter"):
        require_served("merged:nf4")


def test_a_program_that_answers_otherwise_is_found(
    finished: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here by sampling, which is what a forgotten setting of generation would do."""
    from transformers import GenerationMixin

    generate = GenerationMixin.generate

    def sampling(self: GenerationMixin, **options: object) -> object:
        return generate(self, **{**options, "do_sample": True, "temperature": 5.0})

    export_run(finished.run_id, tmp_path / "out", form="merged", to=tmp_path / "exported", view=RunView())
    monkeypatch.setattr(GenerationMixin, "generate", sampling)
    with pytest.raises(RunError, match="--check: to 'The first thing to know about' Transformers answers "):
        check_served(Subject.of(finished.run_id, tmp_path / "out"), tmp_path / "exported")
