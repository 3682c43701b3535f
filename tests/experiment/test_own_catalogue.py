"""Catalogues of one's own: beside the experiment, in the working folder, in the configuration folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lorabench.core import catalog
from lorabench.core.errors import ConfigError, InputError
from lorabench.corpora.catalog import dataset_rows, get_dataset
from lorabench.experiment.plan import make_plan
from lorabench.experiment.schema import load_experiment
from lorabench.models.catalog import get_model, model_rows
from tests.hub.corpora import texts

OWN = """
models:
  ours: {source: folder, path: models/ours, family: llama}
datasets:
  letters: {source: file, path: ../letters.jsonl}
"""
EXPERIMENT = """
name: own
models: ours
datasets: letters
adapter: {rank: 2}
training: {context_length: 32, batch_size: 2, train_bytes: 2000, precision: fp32}
"""


@pytest.fixture
def folder(tiny_model: Callable[[str], Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment with a catalogue beside it, seen from another working folder, without a configuration folder."""
    folder = tmp_path / "project" / "experiments"
    shutil.copytree(tiny_model("smollm2"), folder / "models" / "ours")
    rows = [json.dumps({"text": text}) for text in texts("ours", 60)]
    (folder.parent / "letters.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "lorabench.yaml").write_text(OWN, encoding="utf-8")
    (folder / "experiment.yaml").write_text(EXPERIMENT, encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(catalog.OWN_CATALOGUE, raising=False)
    return folder


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    catalog.look_beside(Path("lorabench.yaml"))


def test_beside_the_experiment_with_paths_from_there(folder: Path) -> None:
    (group,) = make_plan(load_experiment(folder / "experiment.yaml")).groups
    assert (group.model.name, group.dataset.name) == ("ours", "letters")
    assert group.model.folder == folder / "models" / "ours"
    listed = {row["name"]: row["listed_in"] for row in model_rows()}
    assert (listed["ours"], listed["gpt2"]) == (str(folder / "lorabench.yaml"), "lorabench")
    assert {row["name"]: row["listed_in"] for row in dataset_rows()}["letters"] == str(folder / "lorabench.yaml")
    other = folder.parent / "other.yaml"
    shutil.copy(folder / "experiment.yaml", other)
    with pytest.raises(InputError, match="ours"):
        make_plan(load_experiment(other))


@pytest.mark.parametrize("place", ["config/lorabench", "elsewhere"])
def test_in_the_configuration_folder_and_the_working_folder(folder: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    moved = (folder / "lorabench.yaml").rename(tmp_path / place / "lorabench.yaml")
    moved.write_text(OWN.replace("models/ours", str(folder / "models" / "ours")), encoding="utf-8")
    assert get_model("ours").present_folder() == folder / "models" / "ours"
    assert get_dataset("letters").name == "letters"
    moved.write_text("models: {}", encoding="utf-8")
    with pytest.raises(InputError, match="ours"):
        get_model("ours")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  ours:", "  gpt2:", "lorabench.yaml: models: gpt2: lorabench has an entry of that name; choose another"),
        ("  letters:", "  news:", "lorabench.yaml: datasets: news: lorabench has an entry of that name"),
        ("family: llama", "famly: llama", "lorabench.yaml: models: ours: fam"),
        ("datasets:", "data:", "lorabench.yaml: 'data' is not accepted; a catalogue holds models and datasets"),
        ("models:", "models: [", "lorabench.yaml"),
        ("models/ours", "models/none", "models/none: there is no such folder"),
    ],
)
def test_mistakes_name_file_and_key(folder: Path, old: str, new: str, said: str) -> None:
    (folder / "lorabench.yaml").write_text(OWN.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        make_plan(load_experiment(folder / "experiment.yaml"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_catalogues_with_one_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config" / "lorabench").mkdir(parents=True)
    shutil.copy(folder / "lorabench.yaml", tmp_path / "config" / "lorabench")
    with pytest.raises(ConfigError, match=r"datasets: letters: .*experiments/lorabench\.yaml has an entry of that"):
        make_plan(load_experiment(folder / "experiment.yaml"))


def test_folders_beside_the_experiment(folder: Path) -> None:
    file = folder / "experiment.yaml"
    file.write_text(EXPERIMENT.replace("models: ours", "models: [models/ours]"), encoding="utf-8")
    (group,) = make_plan(load_experiment(file)).groups
    assert group.model.folder == folder / "models" / "ours"
    file.write_text(EXPERIMENT.replace("models: ours", "models: [./models/none]"), encoding="utf-8")
    with pytest.raises(InputError, match=r"\./models/none: there is no such folder, neither in .*experiments nor in "):
        load_experiment(file)
