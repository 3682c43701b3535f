"""llama.cpp runs the files that are written here as they are: its logits, its token ids, its greedy continuations."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorabench.deploy.engine import Source, write_greedily
from lorabench.deploy.gguf.file import type_counts, write_gguf
from lorabench.deploy.gguf.importance import measure_importance
from lorabench.deploy.gguf.llama import LORA_FILE, QUANTISED, quantise, quietly
from lorabench.deploy.gguf.lora import write_lora
from lorabench.models.base import load_base
from lorabench.models.loaded import LoadedLinears
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


def test_an_importance_matrix_lowers_the_errors_that_it_weighs(random_model: ModelMaker, tmp_path: Path) -> None:
    folder = random_model("llama")
    write_gguf(folder, tmp_path / "wide.gguf", type_name="f32", name="llama")
    rows = [[(row * 31 + place * 7) % VOCABULARY for place in range(40)] for row in range(6)]
    importance = measure_importance(folder, rows)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        states = model.base_model(torch.tensor(rows), output_hidden_states=True).hidden_states[1]
        read = model.base_model.layers[1].input_layernorm(states)
    wanted = read.flatten(0, 1).square().mean(0).numpy()
    for part in "qkv":
        np.testing.assert_allclose(importance[f"blk.1.attn_{part}.weight"], wanted, rtol=1e-4)
    assert len(importance) == 2 * 7
    exact = tensors_of(tmp_path / "wide.gguf")
    for kind in ("Q4_0", "IQ4_NL"):
        errors = []
        for place, matrix in enumerate((None, importance)):
            quantise(tmp_path / "wide.gguf", tmp_path / f"{place}.gguf", kind, matrix)
            ours = tensors_of(tmp_path / f"{place}.gguf")
            errors.append(sum(float((importance[key] * (ours[key] - exact[key]) ** 2).sum()) for key in importance))
        assert errors[1] < 0.99 * errors[0]


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize("name", ["gpt2", "pythia", "llama", "qwen3", "gemma3"])
def test_an_adapter_beside_its_base(name: str, random_model: ModelMaker, tmp_path: Path) -> None:
    """Of modules with ranks and alphas of their own, on every linear layer; as PEFT computes it."""
    from lorabench.deploy.engines.llama import ENGINE

    base = load_base(random_model(name), precision="fp32", device="cpu")
    torch.manual_seed(2)
    parts = sorted({path.rpartition(".")[2] for path in LoadedLinears(base.model).linears})
    settings = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        fan_in_fan_out=name == "gpt2",
        target_modules=parts,
        rank_pattern={parts[0]: 2},
        alpha_pattern={parts[1]: 3},
    )
    adapted = get_peft_model(base.model, settings).eval()
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                parameter.normal_(std=0.2)
    base.model = adapted
    write_gguf(random_model(name), tmp_path / "base.gguf", type_name="f32", name=name)
    ids = [place * 7 % VOCABULARY for place in range(60)]
    alone = ENGINE.scorer(source(tmp_path)).logits(ids)
    write_lora(base, tmp_path / LORA_FILE, name)
    ours = ENGINE.scorer(source(tmp_path)).logits(ids)
    with torch.inference_mode():
        theirs = adapted(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()
    assert np.abs(ours - alone).max() > 0.1 * np.abs(theirs).max()


def test_greedy_continuations(random_model: ModelMaker, tmp_path: Path) -> None:
    """Ten prompts, as long as the model's context allows; of two that are all but tied llama.cpp may take either."""
    from lorabench.deploy.engines.llama import ENGINE

    folder = random_model("llama")
    write_gguf(folder, tmp_path / "model.gguf", type_name="f32", name="llama")
    runtime = ENGINE.runtime(source(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    num_equal = 0
    for prompt in range(10):
        ids = [(prompt * 31 + place * 7) % VOCABULARY for place in range(10)]
        written = write_greedily(runtime, ids, max_new_tokens=50, end_ids=())
        wanted = model.generate(
            torch.tensor([ids]), max_new_tokens=50, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        num_equal += written == wanted[0, 10:].tolist()
        with torch.inference_mode():
            logits = model(torch.tensor([ids + written])).logits[0, 9:-1]
        taken = logits.gather(1, torch.tensor(written)[:, None])[:, 0]
        assert (logits.max(1).values - taken).max() < 0.01 * logits.abs().max()
    assert num_equal >= 7
