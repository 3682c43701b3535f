"""The catalogue's models at their real sizes, on the meta device: no weights, but every shape and every count."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from lorabench.methods.registry import METHODS
from lorabench.methods.settings import AdapterSettings
from lorabench.models.catalog import get_model

REAL: dict[str, Callable[[], Any]] = {
    "gpt2": transformers.GPT2Config,
    "pythia-410m": lambda: transformers.GPTNeoXConfig(
        vocab_size=50_304, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
    "gemma-2b": lambda: transformers.GemmaConfig(
        vocab_size=256_000, hidden_size=2048, num_hidden_layers=18, num_attention_heads=8, num_key_value_heads=1,
        head_dim=256, intermediate_size=16_384,
    ),
    "smollm2-135m": lambda: transformers.LlamaConfig(
        vocab_size=49_152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, tie_word_embeddings=True,
    ),
}  # fmt: skip
PARAMETERS = {
    "gpt2": (124_439_808, 1_179_648),
    "pythia-410m": (405_334_016, 3_145_728),
    "gemma-2b": (2_506_172_416, 9_805_824),
    "smollm2-135m": (134_515_008, 2_442_240),
}


@pytest.mark.parametrize("name", REAL)
def test_parameters_are_the_published_ones(name: str) -> None:
    """PEFT's own choice of all linear layers and its own count, on the architecture itself."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(REAL[name]())
    shape, settings = get_model(name).model_shape(), AdapterSettings(rank=8)
    method = METHODS.get("lora")
    targets = method.resolve_targets(shape, settings)
    in_all, trainable = PARAMETERS[name]
    assert model.num_parameters() == in_all == shape.num_parameters
    modules = dict(model.named_modules())
    for path, sizes in shape.linears.items():
        assert set(modules[path].weight.shape) == set(sizes), path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    adapted = {
        name.removeprefix("base_model.model.")
        for name, module in wrapped.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    assert adapted == set(targets)
    assert wrapped.get_nb_trainable_parameters()[0] == trainable == method.count_trainable(shape, settings, targets)


def test_gemma_scores_with_and_without_bos(tiny_model: Callable[[str], Path]) -> None:
    """A tiny Gemma that has learnt texts with BOS before them: without it they cost more bits per byte."""
    folder = tiny_model("gemma")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = "The river runs by the old stone bridge and the market closes when the evening comes."
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    bos = torch.full((1, 1), tokenizer.bos_token_id)
    assert tokenizer.bos_token_id == 2

    def bits_per_byte(prefix: torch.Tensor) -> torch.Tensor:
        logits = model(torch.cat([prefix, ids], dim=1)).logits[:, prefix.shape[1] : -1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[0, 1:], reduction="sum")
        return loss / math.log(2) / len(tokenizer.decode(ids[0, 1:]).encode())

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        bits_per_byte(bos).backward()
        optimizer.step()
    with torch.no_grad():
        assert 1.1 * bits_per_byte(bos) < bits_per_byte(bos[:, :0])
