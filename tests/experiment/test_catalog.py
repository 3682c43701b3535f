from __future__ import annotations

import re
import subprocess
import sys

import pytest

from lorabench.core.catalog import read_entries
from lorabench.core.errors import ConfigError, UnknownNameError
from lorabench.corpora.catalog import SOURCES as DATASET_SOURCES
from lorabench.corpora.catalog import dataset_rows, get_dataset, list_datasets
from lorabench.corpora.sources.hub import HubCorpus
from lorabench.models.catalog import SOURCES as MODEL_SOURCES
from lorabench.models.catalog import get_model, list_models, model_rows

RANK_8_PARAMETERS = {"gpt2": 1_179_648, "pythia-410m": 3_145_728, "gemma-2b": 9_805_824, "smollm2-135m": 2_442_240}


def test_every_entry_is_complete() -> None:
    assert {"news", "wikipedia", "medical", "python-code", "technical-docs", "stories"} <= {
        entry.name for entry in list_datasets()
    }
    assert sum(entry.source == "hub" for entry in list_datasets()) == 9
    assert sum(entry.source == "mini" for entry in list_models()) == 3
    for entry in (*list_models(), *list_datasets()):
        assert entry.licence
    known = {entry.name for entry in list_models()}
    for entry in list_datasets():
        assert set(entry.contaminates) <= known


@pytest.mark.parametrize(("name", "expected"), RANK_8_PARAMETERS.items())
def test_linear_modules_give_the_published_parameter_counts(name: str, expected: int) -> None:
    linears = get_model(name).model_shape().linears
    assert sum(8 * (inputs + outputs) for inputs, outputs in linears.values()) == expected


def test_unknown_names_have_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="smollm2-135m-instruct"):
        get_model("smollm2-135m-instuct")
    with pytest.raises(UnknownNameError, match="wikipedia"):
        get_dataset("wikipeda")


def test_pythia_and_the_pile_are_flagged() -> None:
    assert "pythia-410m" in get_dataset("pile-10k").contaminates


def test_rows_show_every_entry() -> None:
    assert [row["name"] for row in model_rows()] == [entry.name for entry in list_models()]
    assert [row["name"] for row in dataset_rows()] == [entry.name for entry in list_datasets()]
    assert len({tuple(row) for row in dataset_rows()}) == 1


MODEL = """
x:
  source: hub
  repository: some/model
  family: llama
  licence: MIT
  download_bytes: 1
  num_parameters: 1
  num_layers: 1
  hidden_size: 1
  vocabulary_size: 1
  max_context_length: 1
  layer_path: model.layers
  linear_modules: {mlp.up: [1, 2]}
"""


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("family: llama", "family: llama\n  colour: red", "colour"),
        ("repository: some/model", "repository: ../../etc", "repository"),
        ("repository: some/model\n", "\n", "x: repository: Field required"),
        (
            "source: hub",
            "source: hubb",
            "there is no source of models 'hubb'; accepted: folder, hub, mini, wheel. Did you mean 'hub'?",
        ),
        ("  source: hub\n", "", "x: source: it is missing; accepted: folder, hub, mini, wheel"),
        ("linear_modules: {mlp.up: [1, 2]}", "linear_modules: {mlp.up: [1, 0]}", "linear_modules"),
        ("num_layers: 1", "num_layers: 0", "num_layers"),
        ("x:", "X/../y:", "name"),
        ("x:", "x: [", "not YAML"),
    ],
)
def test_wrong_entries_are_refused_in_one_sentence(old: str, new: str, named: str) -> None:
    assert "x" in read_entries(MODEL, MODEL_SOURCES, "models.yaml")
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        read_entries(MODEL.replace(old, new, 1), MODEL_SOURCES, "models.yaml")
    assert "\n" not in str(caught.value)


def test_a_new_hub_corpus_is_one_entry() -> None:
    text = """
mine:
  source: hub
  repository: me/corpus
  text_fields: [body]
  format: csv
  licence: MIT
  domain: letters
  approximate_bytes: 10
  download_bytes: 10
"""
    entry = read_entries(text, DATASET_SOURCES, "datasets.yaml")["mine"]
    assert isinstance(entry, HubCorpus)
    assert entry.splits == {"train": "train"}
    assert not entry.pinned


def test_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lorabench.corpora import catalog as c; from lorabench.models import catalog as m; "
        "m.model_rows(); c.dataset_rows();"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
