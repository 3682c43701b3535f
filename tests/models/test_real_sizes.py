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
from lorabench.models.catalog import get_model, list_models
from lorabench.models.loaded import LoadedLinears


def sizes(
    vocabulary: int, hidden: int, layers: int, heads: int, key_value_heads: int, intermediate: int, **more: Any
) -> dict[str, Any]:
    """A configuration's sizes under the names that most architectures give them."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "intermediate_size": intermediate,
        "pad_token_id": None,
    } | more


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


PUBLISHED: dict[str, tuple[Callable[..., Any], dict[str, Any], int]] = {
    "smollm2-360m": (transformers.LlamaConfig, sizes(49_152, 960, 32, 15, 5, 2560, tie_word_embeddings=True),
                     361_821_120),
    "smollm2-1.7b": (transformers.LlamaConfig, sizes(49_152, 2048, 24, 32, 32, 8192, tie_word_embeddings=True),
                     1_711_376_384),
    "smollm3-3b": (transformers.SmolLM3Config, sizes(128_256, 2048, 36, 16, 4, 11_008, tie_word_embeddings=True),
                   3_075_098_624),
    "gpt2-medium": (transformers.GPT2Config, {"n_embd": 1024, "n_layer": 24, "n_head": 16}, 354_823_168),
    "pythia-70m": (transformers.GPTNeoXConfig, sizes(50_304, 512, 6, 8, 8, 2048), 70_426_624),
    "pythia-160m": (transformers.GPTNeoXConfig, sizes(50_304, 768, 12, 12, 12, 3072), 162_322_944),
    "pythia-1b": (transformers.GPTNeoXConfig, sizes(50_304, 2048, 16, 8, 8, 8192), 1_011_781_632),
    "pythia-1.4b": (transformers.GPTNeoXConfig, sizes(50_304, 2048, 24, 16, 16, 8192), 1_414_647_808),
    "qwen3-0.6b": (transformers.Qwen3Config, sizes(151_936, 1024, 28, 16, 8, 3072, head_dim=128,
                   tie_word_embeddings=True), 596_049_920),
    "qwen3-1.7b": (transformers.Qwen3Config, sizes(151_936, 2048, 28, 16, 8, 6144, head_dim=128,
                   tie_word_embeddings=True), 1_720_574_976),
    "qwen3-4b": (transformers.Qwen3Config, sizes(151_936, 2560, 36, 32, 8, 9728, head_dim=128,
                 tie_word_embeddings=True), 4_022_468_096),
    "gemma-3-270m": (transformers.Gemma3TextConfig, sizes(262_144, 640, 18, 4, 1, 2048, head_dim=256), 268_098_176),
    "gemma-3-1b": (transformers.Gemma3TextConfig, sizes(262_144, 1152, 26, 4, 1, 6912, head_dim=256), 999_885_952),
    "llama-3.2-1b": (transformers.LlamaConfig, sizes(128_256, 2048, 16, 32, 8, 8192, tie_word_embeddings=True),
                     1_235_814_400),
    "llama-3.2-3b": (transformers.LlamaConfig, sizes(128_256, 3072, 28, 24, 8, 8192, tie_word_embeddings=True),
                     3_212_749_824),
    "olmo-2-1b": (transformers.Olmo2Config, sizes(100_352, 2048, 16, 16, 16, 8192), 1_484_916_736),
    "phi-4-mini": (transformers.Phi3Config, sizes(200_064, 3072, 32, 24, 8, 8192, tie_word_embeddings=True),
                   3_836_021_760),
    "mistral-7b": (transformers.MistralConfig, sizes(32_768, 4096, 32, 32, 8, 14_336), 7_248_023_552),
}  # fmt: skip
"""The configurations that the hub's config.json files hold, and the parameters that their pages state."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_entries_are_of_the_architecture(name: str) -> None:
    """Every linear layer of the published configuration, its size, and all parameters."""
    config, values, in_all = PUBLISHED[name]
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config(**values))
    entry = get_model(name)
    shape, linears = entry.model_shape(), LoadedLinears(model)
    assert shape.linears == linears.linears
    assert shape.num_parameters == linears.num_parameters == in_all
    assert shape.family == model.config.model_type
    assert (shape.num_layers, shape.hidden_size) == (model.config.num_hidden_layers, model.config.hidden_size)
    assert shape.vocabulary_size == model.config.vocab_size
    assert in_all * 2 <= entry.download_bytes <= in_all * 4.4


def test_every_hub_entry_is_checked() -> None:
    assert {entry.name for entry in list_models() if entry.source == "hub"} == {*REAL, *PUBLISHED}


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
