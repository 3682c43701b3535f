"""GGUF files, read back by programs that know nothing of ours: Transformers' reader, and llama.cpp where it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lorabench.core.errors import InputError, ModelError
from lorabench.deploy.gguf.file import type_counts, write_gguf
from lorabench.deploy.gguf.vocabulary import read_vocabulary
from tests.deploy.conftest import CONFIGURATIONS, VOCABULARY, ModelMaker

TEXT = "A tiny model reads naïve café text, 1234 times:\n\n  over and over."
UNKNOWN_TO_TRANSFORMERS = {"pythia", "gemma", "mistral", "llama3"}
"""Whose GGUF files Transformers cannot read, or (llama3) reads without the stretching; llama.cpp does."""


@pytest.mark.parametrize("name", sorted(set(CONFIGURATIONS) - UNKNOWN_TO_TRANSFORMERS))
def test_transformers_reads_the_same_model(name: str, random_model: ModelMaker, tmp_path: Path) -> None:
    folder = random_model(name)
    write_gguf(folder, tmp_path / "model.gguf", type_name="f32", name=name)
    config = AutoConfig.from_pretrained(folder)  # of some settings Transformers' reader of GGUF files knows nothing
    read = AutoModelForCausalLM.from_pretrained(tmp_path, config=config, gguf_file="model.gguf", dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(40)[None] * 7 % VOCABULARY
    with torch.inference_mode():
        torch.testing.assert_close(read(ids).logits, ours(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "smollm2", "pythia", "gemma"])
def test_the_vocabulary_is_the_tokenizers(family: str, tiny_model: ModelMaker) -> None:
    folder = tiny_model(family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = read_vocabulary(folder, len(tokenizer) + 3)
    assert len(vocabulary.tokens) == len(vocabulary.types) == len(tokenizer) + 3
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    assert [name for name in vocabulary.tokens[: len(names)] if not name.startswith("[PAD")] == [
        name for name in names if name in vocabulary.tokens
    ]
    assert len({*names} - {*vocabulary.tokens}) <= (family == "gemma")  # Transformers adds a <mask> of its own
    assert vocabulary.types[-3:] == [int(gguf.TokenType.UNUSED)] * 3
    assert vocabulary.kind == ("llama" if family == "gemma" else "gpt2")
    if family != "gemma":
        assert vocabulary.splitting == {"smollm2": "smollm"}.get(family, "gpt-2")


def test_matrices_have_the_type_that_was_asked_for(random_model: ModelMaker, tmp_path: Path) -> None:
    folder = random_model("qwen3")
    for type_name in ("f16", "bf16", "q8_0"):
        write_gguf(folder, tmp_path / f"{type_name}.gguf", type_name=type_name, name="qwen3")
        counts = type_counts(tmp_path / f"{type_name}.gguf")
        assert set(counts) == {type_name.upper(), "F32"}
        assert counts[type_name.upper()] == 2 * 7 + 2
    (embeddings,) = [
        tensor for tensor in gguf.GGUFReader(tmp_path / "bf16.gguf").tensors if tensor.name == "token_embd.weight"
    ]
    stored = gguf.quants.dequantize(embeddings.data, embeddings.tensor_type)
    real = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight.detach().bfloat16().float()
    np.testing.assert_array_equal(stored, real.numpy())


def test_what_llama_cpp_computes_otherwise_is_refused(random_model: ModelMaker, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name, changes, reason in [
        ("llama", {"model_type": "bloom"}, "no GGUF file is written for models of type bloom"),
        ("llama", {"hidden_act": "gelu"}, "activation is 'gelu'"),
        ("mistral", {"sliding_window": 16}, "sliding window"),
        ("gemma2", {"query_pre_attn_scalar": 64}, "scaled by 64"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "stretched by 'yarn'"),
    ]:
        shutil.copytree(random_model(name), folder, dirs_exist_ok=True)
        config = json.loads((random_model(name) / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ModelError, match=reason):
            write_gguf(folder, tmp_path / "model.gguf", type_name="f32", name=name)
        assert not (tmp_path / "model.gguf").exists()


def test_an_unknown_splitting_is_refused(random_model: ModelMaker, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(random_model("llama"), folder)
    state = json.loads((folder / "tokenizer.json").read_text())
    state["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(ModelError, match=r"splits text before its merges \(Whitespace\)"):
        write_gguf(folder, tmp_path / "model.gguf", type_name="f32", name="llama")


def test_an_unknown_type_is_named(random_model: ModelMaker, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="accepted: f32, f16, bf16, q8_0"):
        write_gguf(random_model("llama"), tmp_path / "model.gguf", type_name="q3", name="llama")
