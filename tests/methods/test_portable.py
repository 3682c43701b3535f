"""An adapter's folder as others find it: the base's name, its tokenizer, the same bytes whoever wrote it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorabench.methods.attach import attach
from lorabench.methods.portable import TOKENIZER_FILES, BaseReference
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import load_base
from lorabench.models.entry import ModelInfo, ModelLocation, Published
from lorabench.models.locate import locate_model
from tests.conftest import FAMILIES
from tests.fast.fast_cases import alone_nll, packed, randomise, settings

TinyModel = Callable[[str], Path]
TEXT = "A river, a stone\nand  two lamps: naïve 數 <s> "


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_lies_beside_the_adapter(tiny_model: TinyModel, family: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model(family), tmp_path / "base")
    base = load_base(folder, precision="fp32", device="cpu")
    adapter = attach(base, settings(), seed=0)
    randomise(adapter)
    adapter.save(tmp_path / "adapter", BaseReference.of(locate_model(str(folder))))
    theirs, ours = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert ours(TEXT)["input_ids"] == theirs(TEXT)["input_ids"]
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert type(ours) is type(theirs)
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names <= {"adapter_config.json", "adapter_model.safetensors", "tokenizer_config.json", *TOKENIZER_FILES}
    batch = packed([(9, 30, 2)], base.model.config.vocab_size)
    read = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32).eval()
    if len(theirs) > base.model.config.vocab_size:  # the tiny Gemma's class adds a token, and PEFT a row for it
        assert family == "gemma"
        read.resize_token_embeddings(base.model.config.vocab_size)
    assert torch.allclose(alone_nll(read, batch), base.token_nll(batch).double(), rtol=1e-5, atol=1e-5)


def test_a_tokenizer_without_a_tokenizer_json_is_saved_whole(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model("gpt2"), tmp_path / "base")
    values = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(values["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in values["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    BaseReference.of(locate_model(str(folder))).copy_tokenizer(_made(tmp_path / "adapter"))
    theirs, ours = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert ours(TEXT)["input_ids"] == theirs(TEXT)["input_ids"]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_base_of_the_hub_is_named_by_repository_and_commit(tiny_model: TinyModel, tmp_path: Path) -> None:
    commit = "060db6499f32faf8b98477b0a26969ef7d8b9987"
    snapshot = tmp_path / "hub" / "models--Qwen--Qwen2.5-0.5B" / "snapshots" / commit
    blobs = _made(snapshot.parents[1].parent.parent / "blobs")
    snapshot.mkdir(parents=True)
    for path in tiny_model("smollm2").iterdir():
        shutil.copyfile(path, blobs / path.name)
        (snapshot / path.name).symlink_to(blobs / path.name)
    by_path = locate_model(str(snapshot))
    info = ModelInfo("hub", "llama", None, None, False)
    by_name = ModelLocation("qwen", snapshot, commit, info, Published("Qwen/Qwen2.5-0.5B", commit))
    for number, location in enumerate((by_path, by_name)):
        adapter = attach(load_base(snapshot, precision="fp32", device="cpu"), settings(), seed=0)
        adapter.save(tmp_path / f"adapter{number}", BaseReference.of(location))
        config = json.loads((tmp_path / f"adapter{number}" / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == ("Qwen/Qwen2.5-0.5B", commit)
        assert str(tmp_path) not in (tmp_path / f"adapter{number}" / "adapter_config.json").read_text()
        assert not any(path.is_symlink() for path in (tmp_path / f"adapter{number}").iterdir())


PROGRAM = """
import sys
from pathlib import Path
from lorabench.methods.attach import attach
from lorabench.methods.portable import BaseReference
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import load_base
from lorabench.models.locate import locate_model
model, out = map(Path, sys.argv[1:])
base = load_base(model, precision="fp32", device="cpu")
for target in ("all-linear", "q_proj,v_proj,o_proj,up_proj"):
    adapter = attach(base, AdapterSettings(rank=2, target_modules=target), seed=0)
    adapter.save(out / target, BaseReference.of(locate_model(str(model))))
    adapter.detach()
"""


@pytest.mark.slow
def test_every_process_writes_the_same_bytes(tiny_model: TinyModel, tmp_path: Path) -> None:
    hashes = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        command = [sys.executable, "-c", PROGRAM, str(tiny_model("smollm2")), str(out)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed})
        files = sorted(path for path in out.rglob("*") if path.is_file())
        hashes.append({str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    assert len(hashes[0]) >= 6
    assert hashes[0] == hashes[1]


def test_the_files_differ_from_pefts_own_in_order_alone(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = tiny_model("smollm2")
    chosen = AdapterSettings(rank=4, alpha=8.0, target_modules="attention", dropout=0.1)
    attach(load_base(folder, precision="fp32", device="cpu"), chosen, seed=3).save(tmp_path / "ours")
    torch.manual_seed(3)
    names = ["q_proj", "k_proj", "v_proj", "o_proj"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8.0, lora_dropout=0.1, target_modules=names, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(tmp_path / "theirs")
    ours, theirs = (json.loads((tmp_path / who / "adapter_config.json").read_text()) for who in ("ours", "theirs"))
    paths = [
        f"model.layers.{layer}.self_attn.{name}" for layer in range(model.config.num_hidden_layers) for name in names
    ]
    assert ours.pop("target_modules") == sorted(paths)
    assert set(theirs.pop("target_modules")) == set(names)
    assert ours == theirs
    weights = [(tmp_path / who / "adapter_model.safetensors").read_bytes() for who in ("ours", "theirs")]
    assert weights[0] == weights[1]
