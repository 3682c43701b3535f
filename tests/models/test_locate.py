from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from lorabench.core.catalog import read_entries
from lorabench.core.errors import ConfigError, ModelError, UnknownNameError
from lorabench.models.catalog import SOURCES, get_model
from lorabench.models.linears import is_attention
from lorabench.models.locate import locate_model
from lorabench.models.shape import read_model_shape
from lorabench.models.sources.mini import MiniModel
from lorabench.samplepack import wheel_model as wheel

FAMILIES = ["gpt2", "pythia", "gemma", "smollm2"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LORABENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def model(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model("smollm2"), tmp_path / "my model"))


def test_a_folder_is_a_model(model: Path, cache: Path) -> None:
    location = locate_model(str(model))
    assert location.name == f"my_model-{location.revision[:8]}"
    assert location.folder == model
    assert location.info.source == "folder"
    assert location.info.family == "llama"
    assert locate_model(str(model)) == location


def test_a_folder_can_stand_in_a_catalogue(model: Path, cache: Path) -> None:
    values = {"source": "folder", "path": str(model), "family": "llama"}
    entry = read_entries(yaml.safe_dump({"ours": values}), SOURCES, "lorabench.yaml")["ours"]
    by_name, by_path = entry.locate(), locate_model(str(model))
    assert by_name == replace(by_path, name="ours")
    assert entry.model_shape() == read_model_shape(model)
    with pytest.raises(ConfigError, match=r"lorabench\.yaml: ours: path: Input"):
        read_entries(yaml.safe_dump({"ours": {**values, "path": None}}), SOURCES, "lorabench.yaml")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_revision_is_of_the_content(model: Path, cache: Path, name: str) -> None:
    before = locate_model(str(model)).revision
    path = model / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x01" if name.endswith("s") else content + b" ")
    assert locate_model(str(model)).revision != before
    path.write_bytes(content)
    assert locate_model(str(model)).revision == before


def test_pickled_weights_are_refused_with_a_remedy(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled \(pytorch_model.bin\).*save_pretrained"):
        locate_model(str(model))


def test_unusable_folders_are_refused(model: Path, tmp_path: Path) -> None:
    def refused(named: str) -> None:
        with pytest.raises(ModelError, match=named) as caught:
            locate_model(str(model))
        assert "\n" not in str(caught.value)

    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:-10])
    refused("cut short")
    (model / "model.safetensors").write_bytes(b"\xff" * 100)
    refused("not a whole safetensors file")
    (model / "model.safetensors").unlink()
    refused("no model.safetensors")
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
    refused("not a safetensors file beside it")
    (model / "model.safetensors").write_bytes(weights)
    for name in ("tokenizer.json", "tokenizer.model", "vocab.json"):
        (model / name).unlink(missing_ok=True)
    refused("no tokenizer")
    (model / "config.json").write_text("[]")
    refused("one JSON object")
    (model / "config.json").unlink()
    refused("no config.json")
    with pytest.raises(ModelError, match="no such folder"):
        locate_model(str(tmp_path / "none"))
    with pytest.raises(UnknownNameError, match="gpt2"):
        locate_model("gtp2")


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_those_of_the_loaded_model(tiny_model: Callable[[str], Path], family: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    folder = tiny_model(family)
    shape = read_model_shape(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    head = loaded.get_output_embeddings()
    expected = {}
    for name, module in loaded.named_modules():
        if isinstance(module, Conv1D):
            expected[name] = (module.weight.shape[0], module.weight.shape[1])
        elif isinstance(module, torch.nn.Linear) and module is not head:
            expected[name] = (module.in_features, module.out_features)
    assert shape.linears == expected
    assert shape.num_parameters == sum(parameter.numel() for parameter in loaded.parameters())
    assert shape.num_layers == loaded.config.num_hidden_layers
    assert shape.vocabulary_size == loaded.config.vocab_size
    assert {name: is_attention(name) for name in expected} == {name: ".mlp." not in name for name in expected}
    assert not shape.experts


def test_a_mini_model_is_built_once_and_again_when_damaged(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built: list[str] = []

    def make(entry: MiniModel, folder: Path, progress: object) -> None:
        built.append(entry.name)
        save_file({"x": np.zeros(3, dtype=np.float32)}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(MiniModel, "make", make)
    first = locate_model("gpt2-mini")
    assert locate_model("gpt2-mini") == first
    assert built == ["gpt2-mini"]
    assert first.folder == get_model("gpt2-mini").present_folder()
    assert first.revision == get_model("gpt2-mini").expected_revision()
    weights = first.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with caplog.at_level(logging.WARNING):
        assert locate_model("gpt2-mini") == first
    assert "model.safetensors is not as it was written" in caplog.text
    assert len(list((cache / "models").glob("*.damaged-*"))) == 1


def test_rotary_halves_are_put_side_by_side() -> None:
    stored = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert wheel._unpermute(stored, num_heads=2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.slow
def test_the_real_model_of_the_sample_pack() -> None:
    """With the machine's own cache: text must come back whole, and the scores must be those of a real model."""
    import math

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lorabench.corpora.store import load_corpus
    from lorabench.tokens.tokenizer import Tokeniser

    location = locate_model("smollm2-135m-instruct")
    assert location.info.weights_note == "Q4_1 weights dequantised to float32"
    stated = get_model("smollm2-135m-instruct").model_shape()
    found = read_model_shape(location.folder)
    assert found.linears == stated.linears
    assert found.num_parameters == stated.num_parameters == 134_515_008
    documents = [d for d in load_corpus("news", max_train_bytes=None).splits["validation"] if d.num_bytes < 2500][:8]
    tokeniser = Tokeniser(location.folder)
    theirs = AutoTokenizer.from_pretrained(location.folder)
    assert tokeniser.prefix_token_id == theirs.bos_token_id == 1
    assert theirs.eos_token_id == 2
    tokens = tokeniser.encode(documents)
    loaded = AutoModelForCausalLM.from_pretrained(location.folder).eval()
    nats = 0.0
    for document, ids in zip(documents, tokens, strict=True):
        assert tokeniser.decode(ids.tolist()) == document.text
        assert ids.tolist() == theirs(document.text, add_special_tokens=False)["input_ids"]
        row = torch.tensor([[tokeniser.prefix_token_id, *ids.tolist()]])
        with torch.no_grad():
            logits = loaded(row).logits[0, :-1]
        nats += float(torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum"))
    bits_per_byte = nats / math.log(2) / sum(document.num_bytes for document in documents)
    assert 0.7 < bits_per_byte < 1.1
    question = theirs("The capital of France is", return_tensors="pt")
    assert "Paris" in theirs.decode(loaded.generate(**question, max_new_tokens=4, do_sample=False)[0])
    manifest = json.loads((location.folder / "lorabench-model.json").read_text())
    assert set(manifest["files"]) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
