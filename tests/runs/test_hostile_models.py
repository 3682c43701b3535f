"""Model and adapter folders made to do harm, or merely broken: one sentence, no code run, no pickle read."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorabench
from lorabench.core.errors import InputError
from lorabench.records.schema import RunRecord
from tests.runs.conftest import write_corpus


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def model(tmp_path: Path, tiny_model: Callable[[str], Path]) -> Path:
    return Path(shutil.copytree(tiny_model("smollm2"), tmp_path / "model"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "text.jsonl", num_documents=12)


def edit_config(folder: Path, name: str = "config.json", **values: Any) -> None:
    path = folder / name
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def refuse(model: Path, text: Path, said: str, adapter: Path | None = None) -> None:
    """Both entrances refuse it with one sentence."""
    with pytest.raises(InputError) as caught:
        lorabench.evaluate(str(model), text, adapter=adapter)
    sentence = str(caught.value)
    assert said in sentence
    assert "\n" not in sentence
    assert len(sentence) < 700


def break_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes((2**60).to_bytes(8, "little") + path.read_bytes()[8:])


def claim_more_than_there_is(folder: Path) -> None:
    path = folder / "model.safetensors"
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "sprung")))


def index_that_leaves(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))


def index_of_pickles(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "sprung")))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "pytorch_model.bin"}}))


def own_code(folder: Path) -> None:
    (folder / "trap.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n")
    auto_map = {"AutoConfig": "trap.Config", "AutoModelForCausalLM": "trap.Model", "AutoTokenizer": ["trap.T", None]}
    edit_config(folder, model_type="trapped", auto_map=auto_map)


def tokenizer_that_says_nothing(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[\\s\\S]"}, "content": ""}
    path.write_text(json.dumps(tokenizer))


def no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()


def drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[next(name for name in tensors if "down_proj" in name)]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def poison(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "down_proj" in name)
    tensors[name].fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "there is no model.safetensors"),
    "weights cut short": (lambda folder: cut(folder / "model.safetensors"), "cut short"),
    "a header of exabytes": (break_header, "not a whole safetensors file"),
    "a header that claims terabytes": (claim_more_than_there_is, "cut short"),
    "pickled weights": (only_pickles, "pickled"),
    "an index that leaves the folder": (index_that_leaves, "not a safetensors file beside it"),
    "an index of pickles": (index_of_pickles, "not a safetensors file beside it"),
    "code of its own": (own_code, "code of its own"),
    "no model_type": (lambda folder: edit_config(folder, model_type=...), "model_type"),
    "an unknown model_type": (lambda folder: edit_config(folder, model_type="warp-drive"), "warp-drive"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
    "a config that is a list": (lambda folder: (folder / "config.json").write_text("[]"), "one JSON object"),
    "a deep config": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "not readable JSON"),
    "no layers": (lambda folder: edit_config(folder, num_hidden_layers=0), "num_hidden_layers"),
    "another size": (lambda folder: edit_config(folder, hidden_size=128), "cannot be loaded"),
    "no tokenizer": (no_tokenizer, "there is no tokenizer"),
    "a tokenizer cut short": (lambda folder: cut(folder / "tokenizer.json"), "is not a tokenizer"),
    "a tokenizer that says nothing": (tokenizer_that_says_nothing, "no token"),
    "a tensor too few": (drop_a_tensor, "down_proj"),
    "weights that are no numbers": (poison, "not finite"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_model_is_one_sentence(model: Path, text: Path, what: str) -> None:
    spoil, said = BROKEN[what]
    spoil(model)
    refuse(model, text, said)
    assert not (model / "sprung").exists()


def test_code_beside_a_known_model_is_never_run(model: Path, text: Path) -> None:
    expected = lorabench.evaluate(str(model), text)
    model_type = json.loads((model / "config.json").read_text())["model_type"]
    own_code(model)
    edit_config(model, model_type=model_type)
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(model / "sprung")))
    scored = lorabench.evaluate(str(model), text)
    assert scored | {"model": expected["model"]} == expected  # a folder is named by its content too
    assert not (model / "sprung").exists()


@pytest.fixture
def adapter(finished: RunRecord, tmp_path: Path) -> Path:
    """A run's adapter, carried away from the record that would show at once that it was changed."""
    return Path(shutil.copytree(tmp_path / "out" / "runs" / finished.run_id / "adapter", tmp_path / "adapter"))


def pickled_adapter(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Trap(folder / "sprung")))


def module_of_its_own(folder: Path) -> None:
    (folder / "trap.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n")
    edit_config(folder, "adapter_config.json", megatron_config={"x": 1}, megatron_core="trap")


def other_layers(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name.replace("down_proj", "no_proj"): tensor for name, tensor in load_file(path).items()}, path)


def half_an_adapter(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(dict(list(load_file(path).items())[:3]), path)


def poisoned_adapter(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: torch.full_like(tensor, float("inf")) for name, tensor in load_file(path).items()}, path)


def larger_rank(folder: Path) -> None:
    edit_config(folder, "adapter_config.json", r=3)


BROKEN_ADAPTERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickled": (pickled_adapter, "pickle"),
    "nothing": (lambda folder: (folder / "adapter_config.json").unlink(), "there is no adapter here"),
    "cut short": (lambda folder: cut(folder / "adapter_model.safetensors"), "adapter"),
    "a config that is a list": (lambda folder: (folder / "adapter_config.json").write_text("[]"), "adapter"),
    "a deep config": (lambda folder: (folder / "adapter_config.json").write_text("[" * 100_000), "adapter"),
    "an unknown kind": (lambda folder: edit_config(folder, "adapter_config.json", peft_type="WARP"), "WARP"),
    "a module of its own": (module_of_its_own, "megatron"),
    "another rank": (larger_rank, "does not fit the model"),
    "other layers": (other_layers, "does not fit the model"),
    "half of it": (half_an_adapter, "does not fit the model"),
    "no numbers": (poisoned_adapter, "not finite"),
}


@pytest.mark.parametrize("what", BROKEN_ADAPTERS)
def test_a_broken_adapter_is_one_sentence(
    adapter: Path, tiny_model: Callable[[str], Path], text: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, said = BROKEN_ADAPTERS[what]
    spoil(adapter)
    monkeypatch.syspath_prepend(str(adapter))
    refuse(tiny_model("smollm2"), text, said, adapter)
    assert not (adapter / "sprung").exists()


def test_an_adapter_of_another_model(adapter: Path, tiny_model: Callable[[str], Path], text: Path) -> None:
    refuse(tiny_model("pythia"), text, "does not fit the model", adapter)


def test_full_weights_of_another_model(tiny_model: Callable[[str], Path], text: Path) -> None:
    refuse(tiny_model("smollm2"), text, "does not fit the model", tiny_model("pythia"))
