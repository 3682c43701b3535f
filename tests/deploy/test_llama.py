"""llama.cpp runs the files that are written here as they are: its logits, its token ids, its greedy continuations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorabench.deploy.engine import Source, write_greedily
from lorabench.deploy.gguf.file import type_counts, write_gguf
from lorabench.deploy.gguf.llama import QUANTISED, quantise, quietly
from tests.deploy.conftest import CONFIGURATIONS, VOCABULARY, ModelMaker
from tests.hub.corpora import texts

llama_cpp = pytest.importorskip("llama_cpp", reason="the extra gguf is not installed")
pytestmark = pytest.mark.slow

ODD = "Größe, 你好, naïve café,  two spaces, 1234567 and 5.678!\n\n\tdef main():\n        return 42\n"


def source(folder: Path, context_length: int = 63) -> Source:
    return Source(
        form="gguf:F32",
        engine="llama",
        folder=folder,
        base_folder=folder,
        context_length=context_length,
        threads=1,
    )


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_logits(name: str, random_model: ModelMaker, tmp_path: Path) -> None:
    """Keys and values are kept in float16, so that logits agree to some thousandths."""
    from lorabench.deploy.engines.llama import ENGINE

    folder = random_model(name)
    write_gguf(folder, tmp_path / "model.gguf", type_name="f32", name=name)
    ids = [place * 7 % VOCABULARY for place in range(60)]
    ours = ENGINE.scorer(source(tmp_path)).logits(ids)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()


@pytest.mark.parametrize("family", ["gpt2", "pythia", "gemma", "smollm2"])
def test_token_ids(family: str, tiny_model: ModelMaker, tmp_path: Path) -> None:
    folder = tiny_model(family)
    write_gguf(folder, tmp_path / "model.gguf", type_name="f32", name=family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with quietly():
        model = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    for text in [*texts("tokens", 40), ODD]:
        wanted = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert model.tokenize(text.encode(), add_bos=False, special=True) == wanted, text


def test_every_type_is_made(random_model: ModelMaker, tmp_path: Path) -> None:
    write_gguf(random_model("qwen2"), tmp_path / "wide.gguf", type_name="f32", name="qwen2")
    for kind in QUANTISED:
        quantise(tmp_path / "wide.gguf", tmp_path / f"{kind}.gguf", kind)
        assert sum(type_counts(tmp_path / f"{kind}.gguf").values()) == sum(type_counts(tmp_path / "wide.gguf").values())


def test_greedy_continuations(random_model: ModelMaker, tmp_path: Path) -> None:
    """Ten prompts, as long as the model's context allows."""
    from lorabench.deploy.engines.llama import ENGINE

    folder = random_model("llama")
    write_gguf(folder, tmp_path / "model.gguf", type_name="f32", name="llama")
    runtime = ENGINE.runtime(source(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for prompt in range(10):
        ids = [(prompt * 31 + place * 7) % VOCABULARY for place in range(10)]
        written = write_greedily(runtime, ids, max_new_tokens=50, end_ids=())
        wanted = model.generate(
            torch.tensor([ids]), max_new_tokens=50, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert written == wanted[0, 10:].tolist()
