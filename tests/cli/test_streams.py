"""Output that nobody reads, or that cannot be written, in real shells: no traceback, and what was asked for is done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lorabench.records.schema import Status
from lorabench.records.store import load_records
from tests.marks import slow
from tests.runs.conftest import write_corpus, write_experiment

LORABENCH = f"{sys.executable} -m lorabench"
COMPLAINTS = ("Traceback", "Exception ignored", "BrokenPipe", "Error")


def shell(command: str, folder: Path) -> tuple[int, str]:
    """The exit code of lorabench itself, and what was printed on standard error or into the file `errors`."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False, cwd=folder, timeout=300
    )
    errors = folder / "errors"
    return done.returncode, done.stdout + done.stderr + (errors.read_text() if errors.is_file() else "")


@pytest.mark.parametrize("command", ["models", "datasets", "--help", "doctor", "--version", "models --json"])
@pytest.mark.parametrize(
    "where", ["| true", ">&-", *map(slow, ("| head -c 1", ">&- 2>&-", "<&- >&- 2>&-", "2>&1 | true"))]
)
def test_commands_that_only_print(tmp_path: Path, command: str, where: str) -> None:
    code, errors = shell(f"{LORABENCH} {command} {where}", tmp_path)
    assert code == 0
    assert not any(complaint in errors for complaint in COMPLAINTS), errors


@pytest.mark.parametrize("where", ["| true", *map(slow, (">&-", "2>&-", "2>&1 | true", ">&- 2>&-"))])
def test_a_mistake_keeps_its_exit_code(tmp_path: Path, where: str) -> None:
    code, errors = shell(f"{LORABENCH} plan nowhere.yaml {where}", tmp_path)
    assert code == 2
    assert not any(complaint in errors for complaint in COMPLAINTS), errors


def test_a_full_disk_under_standard_output_is_one_sentence(tmp_path: Path) -> None:
    code, errors = shell(f"{LORABENCH} models > /dev/full", tmp_path)
    assert (code, errors) == (1, "lorabench: standard output cannot be written: No space left on device\n")
    code, errors = shell(f"{LORABENCH} models > /dev/full 2>&1", tmp_path)
    assert (code, errors) == (1, "")


def test_a_closed_descriptor_is_not_given_to_the_next_file(tmp_path: Path) -> None:
    """Otherwise what is printed would go into it."""
    code = (
        "import os, sys; from lorabench.cli.views.streams import open_streams; open_streams(); "
        "print('lost'); file = open('kept', 'w'); file.write(str(file.fileno())); os.write(1, b'lost too')"
    )
    assert shell(f'{sys.executable} -c "{code}" >&-', tmp_path) == (0, "")
    assert int((tmp_path / "kept").read_text()) > 2


@pytest.mark.parametrize("how", ["PYTHONOPTIMIZE=2 python", "PYTHONOPTIMIZE=5 python", "python -OO"])
def test_python_without_docstrings_is_refused(tmp_path: Path, how: str) -> None:
    code, errors = shell(f"{how.replace('python', sys.executable)} -m lorabench models", tmp_path)
    assert code == 2
    assert errors.startswith("lorabench: Python leaves docstrings out")
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_python_without_assertions_works(tmp_path: Path, tiny_model: Callable[[str], Path]) -> None:
    write_experiment(tmp_path / "a.yaml", tiny_model("gpt2"), write_corpus(tmp_path / "words.jsonl"))
    code, printed = shell(f"PYTHONOPTIMIZE=1 {LORABENCH} run a.yaml --tracker none", tmp_path)
    assert code == 0, printed
    assert "2 of 2 runs completed" in printed


def test_the_version() -> None:
    import lorabench

    done = subprocess.run([*LORABENCH.split(), "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lorabench {lorabench.__version__}\n", "")


@pytest.mark.parametrize("where", [slow("| true"), slow("2>&1 | head -1"), slow(">&- 2>&-"), slow("2> /dev/full")])
def test_a_run_goes_on_to_its_end(tmp_path: Path, tiny_model: Callable[[str], Path], where: str) -> None:
    write_experiment(tmp_path / "a.yaml", tiny_model("gpt2"), write_corpus(tmp_path / "words.jsonl"))
    code, errors = shell(f"{LORABENCH} run a.yaml --tracker none {where}", tmp_path)
    assert code == 0, errors
    assert [record.status for record in load_records(tmp_path / "outputs")] == [Status.COMPLETED] * 2
    assert (tmp_path / "outputs" / "results" / "report.html").is_file()
    assert not any(complaint in errors for complaint in COMPLAINTS), errors
