"""`lorabench init`: what it writes is planned as it says, fits what it was told, and replaces nothing unasked."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lorabench.cli.main import app
from lorabench.core.device import Device, choose_device
from lorabench.core.errors import DataError, InputError, UnknownNameError
from lorabench.experiment.plan import Plan, make_plan
from lorabench.experiment.proposal import propose
from lorabench.experiment.schema import load_experiment
from lorabench.experiment.shipped import find_shipped, shipped_experiments

ROOT = Path(__file__).parents[2]
WORDS = "river stone lamp window garden engine paper cloud signal bridge".split()  # noqa: SIM905
SMALL = Device("cpu", "a processor", 8 << 30, supports_bf16=False)
GPU = Device("cuda", "a GPU", 80 << 30, supports_bf16=True, index=0)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of 300 documents, two of which are there twice; the working folder is its own."""
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = random.Random(0)
    texts = [" ".join(generator.choices(WORDS, k=60)) + f" number {index}." for index in range(300)]
    rows = [json.dumps({"text": text}) for text in (*texts, *texts[:2])]
    (tmp_path / "our tickets.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "our tickets.jsonl"


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["init", *arguments], standalone_mode=False, catch_exceptions=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def test_what_is_written_is_the_plan_that_is_shown(data: Path) -> None:
    output = invoke(data.name, "--device", "cpu")
    (written,) = data.parent.glob("*.yaml")
    assert f"written: {written.name}" in output
    assert "Text: 300 documents" in output
    assert "2 exact duplicates" in output
    experiment = load_experiment(written)
    assert experiment.models == ("smollm2-135m-instruct",)
    assert experiment.datasets == (str(data),)
    plan = make_plan(experiment, choose_device("cpu"))
    assert all(run.run_id[:60] in output for run in plan.runs)
    comments = [line for line in written.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    assert [line[2:] for line in comments[:5]] == output.splitlines()[:5]


def test_a_file_is_replaced_only_when_told(data: Path) -> None:
    target = data.parent / "mine.yaml"
    target.write_text("kept", encoding="utf-8")
    with pytest.raises(InputError, match="there is such a file already; give --force"):
        invoke(data.name, "--output", str(target))
    with pytest.raises(InputError, match="there is such a file already"):
        invoke("--from", "smoke", "--output", str(target))
    assert target.read_text(encoding="utf-8") == "kept"
    invoke("--from", "smoke", "--output", str(target), "--force")
    assert load_experiment(target) == load_experiment(find_shipped("smoke"))


def test_a_file_elsewhere_names_the_text_by_its_whole_path(data: Path) -> None:
    (data.parent / "configs").mkdir()
    invoke(data.name, "--output", "configs/x.yaml", "--device", "cpu")
    assert load_experiment("configs/x.yaml").datasets == (str(data),)


def test_less_time_asks_for_less_and_says_when_it_is_too_little(data: Path) -> None:
    def planned(max_seconds: float) -> Plan:
        return propose(data.name, "text", SMALL, has_hub=False, max_seconds=max_seconds).plan

    most = planned(1e6)
    half, least = planned(most.estimated_seconds / 2), planned(1.0)
    assert most.estimated_seconds / 2 >= half.estimated_seconds > least.estimated_seconds
    facts = propose(data.name, "text", SMALL, has_hub=False, max_seconds=6).facts
    assert "more than the 6 s asked for" in facts[-1]


def test_a_gpu_with_the_hub_is_offered_several_larger_models(data: Path) -> None:
    proposal = propose(data.name, "text", GPU, has_hub=True, max_seconds=36_000)
    names = {group.model.name for group in proposal.plan.groups}
    assert len(names) > 1
    assert not any(group.model.source.gated or group.model.source.source == "mini" for group in proposal.plan.groups)
    assert max(run.estimated_memory_bytes for run in proposal.plan.runs) < GPU.memory_bytes


def test_little_memory_is_refused_in_one_sentence(data: Path) -> None:
    tiny = Device("cpu", "a processor", 200 << 20, supports_bf16=False)
    with pytest.raises(InputError, match=r"no model of the catalogue fits 209\.7 MB of memory here"):
        propose(data.name, "text", tiny, has_hub=False, max_seconds=600)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["nothing.jsonl"], DataError, "there is no such file"),
        (["--from", "smoek"], UnknownNameError, "Did you mean 'smoke'"),
        (["x.jsonl", "--list"], InputError, "exclude one another"),
        (["--from", "smoke", "--output", "nowhere/x.yaml"], InputError, "there is no folder nowhere"),
    ],
)
def test_mistakes(data: Path, arguments: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        invoke(*arguments)
    assert list(data.parent.glob("*.yaml")) == []


def test_the_shipped_experiments_are_those_of_configs() -> None:
    assert list(shipped_experiments()) == sorted(
        path.stem for path in (ROOT / "configs" / "experiments").glob("*.yaml")
    )
    listed = {row["name"]: row for row in json.loads(invoke("--list", "--json"))}
    assert list(listed) == list(shipped_experiments())
    assert all(row["question"] for row in listed.values())


@pytest.mark.slow
def test_it_works_from_the_wheel(data: Path) -> None:
    """In a process that has the wheel's files and no working copy."""
    site = data.parent / "site"
    subprocess.run(
        [sys.executable, "-c", _BUILD, str(data.parent)], cwd=ROOT, check=True, capture_output=True, timeout=300
    )
    (wheel,) = data.parent.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = f"import sys; sys.path.insert(0, {str(site)!r}); from lorabench.cli.main import main; main()"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=data.parent, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert {row["name"] for row in json.loads(run("init", "--list", "--json"))} == set(shipped_experiments())
    run("init", data.name, "--device", "cpu", "--output", "mine.yaml")
    assert "smollm2-135m-instruct" in run("plan", "mine.yaml", "--device", "cpu")


_BUILD = """
import sys
from hatchling.build import build_wheel
build_wheel(sys.argv[1])
"""


def test_files_that_are_called_as_splits_are_not_split_anew_in_silence(data: Path) -> None:
    lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
    (data.parent / "split").mkdir()
    for name, part in (("train", lines[:200]), ("dev", lines[200:250]), ("test", lines[250:])):
        (data.parent / "split" / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    assert "are called as splits, but a folder is one text" in " ".join(invoke("split", "--device", "cpu").split())
    assert "are called as splits" not in invoke(data.name, "--device", "cpu")
