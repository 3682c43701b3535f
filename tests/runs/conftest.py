from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import lorabench
from lorabench.core.storage import cache_root
from lorabench.records.schema import RunRecord
from lorabench.records.store import load_records

ExperimentWriter = Callable[..., Path]
"""Writes an experiment file; keywords replace its sections."""

WORDS = (  # noqa: SIM905
    "river stone lantern market winter garden copper violin harbour engine letter shadow basket mountain pepper window "
    "silver thunder meadow captain bridge orange candle forest ladder mirror needle planet quiet rabbit saddle temple"
).split()


def write_corpus(path: Path, seed: int = 0, num_documents: int = 80) -> Path:
    """Different short documents of a small vocabulary, so that a tiny model can learn them."""
    generator = random.Random(seed)
    with path.open("w", encoding="utf-8") as lines:
        for index in range(num_documents):
            words = [generator.choice(WORDS) for _ in range(generator.randint(12, 40))]
            lines.write(json.dumps({"text": f"{' '.join(words).capitalize()}. Number {index}, naïve café."}) + "\n")
    return path


KERNELS = cache_root() / "kernels"


def new_cache(folder: Path) -> Path:
    """An empty cache folder, but for the compiled kernels where this machine has them: compiling takes a while."""
    folder.mkdir(parents=True, exist_ok=True)
    if KERNELS.is_dir():
        shutil.copytree(KERNELS, folder / "kernels", dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def own_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_CACHE", str(shared_cache))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpora") / "words.jsonl")


def write_experiment(path: Path, model: Path, corpus: Path, **changes: object) -> Path:
    """An experiment on a tiny model and a small corpus; keywords replace whole sections or keys."""
    values: dict[str, object] = {
        "name": "tiny",
        "models": [str(model)],
        "datasets": [str(corpus)],
        "adapter": {"rank": [2, 4]},
        "training": {
            "learning_rate": 0.02,
            "batch_size": 4,
            "context_length": 32,
            "train_bytes": 6000,
            "precision": "fp32",
        },
        "evaluation": {"validation_bytes": 1200, "test_bytes": 1200, "times": 2, "samples": 1},
    }
    path.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")
    return path


@pytest.fixture
def experiment(tmp_path: Path, corpus: Path, tiny_model: Callable[[str], Path]) -> ExperimentWriter:
    """Writes an experiment file on a tiny model and a small corpus; keywords replace whole sections or keys."""

    def write(family: str = "smollm2", **changes: object) -> Path:
        return write_experiment(tmp_path / "experiment.yaml", tiny_model(family), corpus, **changes)

    return write


@pytest.fixture(scope="session")
def finished_output(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, tiny_model: Callable[[str], Path], shared_cache: Path
) -> Path:
    """The output folder of one finished run of rank 2: copy it before you spoil it."""
    folder = tmp_path_factory.mktemp("finished")
    path = write_experiment(folder / "experiment.yaml", tiny_model("smollm2"), corpus, adapter={"rank": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORABENCH_CACHE", str(shared_cache))
        outcome = lorabench.run(path, folder / "out", trackers=["none"])
    assert outcome.exit_code == 0
    return folder / "out"


@pytest.fixture
def finished(finished_output: Path, tmp_path: Path) -> RunRecord:
    """The record of a finished run, which lies in `tmp_path / "out"`."""
    shutil.copytree(finished_output, tmp_path / "out")
    (record,) = load_records(tmp_path / "out")
    return record
