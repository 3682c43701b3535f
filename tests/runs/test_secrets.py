"""Keys and passwords planted in the environment are in no file that is written and in no line that is printed."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from lorabench.core.redaction import without_secrets
from tests.runs.conftest import ExperimentWriter

PASSWORD = "Pl4nted/pass+word"
PLANTED = {
    "HF_TOKEN": "hf_PlantedTokenOfTheHub0123456789",
    "WANDB_API_KEY": "9c1185a5c5e9fc54612808977ee8f548b2258d31",
    "OPENAI_API_KEY": 'sk-Planted"quoted\\value',
    "MY_PASSWORD": "hunter2-planted",
    "AWS_SECRET_ACCESS_KEY": "PlantedAws/With+Odd=Characters",
    "SOME_TOKEN": "planted token with blanks",
    "HF_ENDPOINT": f"http://planted-user:{urllib.parse.quote(PASSWORD, safe='')}@127.0.0.1:9",
    "WANDB_BASE_URL": f"http://planted-user:{urllib.parse.quote(PASSWORD, safe='')}@127.0.0.1:9",
}
FORBIDDEN = [value for name, value in PLANTED.items() if not name.endswith(("ENDPOINT", "URL"))]
FORBIDDEN += [PASSWORD, urllib.parse.quote(PASSWORD, safe=""), urllib.parse.quote(PASSWORD)]


def search(content: bytes) -> list[str]:
    """Planted values in some content, as they are or as JSON writes them."""
    forms = {form: value for value in FORBIDDEN for form in (value, value.replace("\\", "\\\\").replace('"', '\\"'))}
    return [value for form, value in forms.items() if form.encode() in content]


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "lorabench", *arguments]
    return subprocess.run(command, capture_output=True, env=os.environ | PLANTED | environment, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_planted_secrets_are_nowhere(
    experiment: ExperimentWriter, tiny_model: Callable[[str], Path], tmp_path: Path, mode: str
) -> None:
    out = tmp_path / "out"
    path = experiment(adapter={"rank": 2}, models=[str(tiny_model("smollm2")), "smollm2-135m"])
    question = f"question='is {PLANTED['MY_PASSWORD']} or {PLANTED['SOME_TOKEN']} safe?'"
    done = run(
        ["run", str(path), "--output-dir", str(out), "--tracker", "wandb,tensorboard", "--set", question],
        WANDB_MODE=mode,
        HF_HUB_OFFLINE="0",
        HF_HOME=str(tmp_path / "hub"),
    )
    assert b"1 of 2 runs completed" in done.stdout, done.stderr
    assert search(done.stdout + done.stderr) == []
    files = [path for path in out.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    found = {str(path): search(path.read_bytes()) for path in files}
    assert {name: values for name, values in found.items() if values} == {}
    assert b"*** or *** safe?" in b"".join(path.read_bytes() for path in files if path.name == "record.json")


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", PLANTED["MY_PASSWORD"]],
        ["plan", "x.yaml", "--set", f"{PLANTED['MY_PASSWORD']}=1"],
        ["show", PLANTED["SOME_TOKEN"]],
        ["evaluate", "--model", PLANTED["HF_TOKEN"], "--data", "x.jsonl"],
        [PLANTED["MY_PASSWORD"]],
        ["report", PLANTED["AWS_SECRET_ACCESS_KEY"]],
    ],
)
def test_a_secret_given_by_mistake_is_not_repeated(
    experiment: ExperimentWriter, corpus: Path, arguments: list[str]
) -> None:
    files = {"x.yaml": str(experiment()), "x.jsonl": str(corpus)}
    done = run([files.get(argument, argument) for argument in arguments])
    assert done.returncode == 2
    assert b"***" in done.stderr
    assert search(done.stdout + done.stderr) == []


def test_ordinary_settings_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TOKENIZERS_PARALLELISM": "parallel", "KEYBOARD": "german", "MONKEY_KEY": "abc"}.items():
        monkeypatch.setenv(name, value)
    assert without_secrets("parallel german abc at https://host/x") == "parallel german abc at https://host/x"
    assert without_secrets("https://me:secret@host/x") == "https://***@host/x"
