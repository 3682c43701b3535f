"""Adapters as PEFT saves them, scored here and by a loop of our own over PEFT's forward pass, window by window."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorabench.core.errors import InputError, ModelError
from lorabench.methods.saved import attach_saved, num_virtual_tokens
from lorabench.models.base import FrozenBase, load_base
from lorabench.runs.evaluation import evaluate
from lorabench.tokens.packing import Segment, make_batch
from tests.methods.peft_kinds import (
    FAMILIES,
    KINDS,
    REFUSED,
    WITHOUT_TEXT_ALONE,
    lora_configs,
    make_config,
    save_model,
)
from tests.scoring.test_evaluation import write_jsonl

Models = Callable[[str], Path]
WINDOWS = [np.random.default_rng(0).integers(60, 90, size=size).astype(np.int32) for size in (9, 31, 3, 60)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = save_model(family, tmp_path_factory.mktemp("models") / family)
        return made[family]

    return make


def plain_nats(model: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Each window's nats: all but its first token, through PEFT's or Transformers' own forward pass."""
    sums = []
    for window in WINDOWS:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logits = model(input_ids=torch.from_numpy(window[None, :-1].astype(np.int64))).logits[0].double()
        targets = torch.from_numpy(window[1:].astype(np.int64))
        sums.append(float(torch.nn.functional.cross_entropy(logits[-len(targets) :], targets, reduction="sum")))
    return np.array(sums)


def our_nats(base: FrozenBase) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The same, with two documents in each row."""
    segments = [Segment(index, window) for index, window in enumerate(WINDOWS)]
    batch = make_batch([segments[:2], segments[2:]])
    return np.add.reduceat(base.token_nll(batch).double().numpy(), batch.segment_starts[:-1])


def save_adapter(model_folder: Path, config: Any, folder: Path, **options: Any) -> Any:
    """PEFT's model with an adapter that matters, saved in `folder`. PEFT warns of what it will not be able to merge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _save_adapter(model_folder, config, folder, options)


def _save_adapter(model_folder: Path, config: Any, folder: Path, options: dict[str, Any]) -> Any:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    torch.manual_seed(5)
    wrapped = get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    wrapped.eval().save_pretrained(folder, **options)
    return wrapped


def assert_scored_as_in_peft(model_folder: Path, wrapped: Any, folder: Path) -> FrozenBase:
    base = load_base(model_folder, precision="fp32", device="cpu")
    plain, wanted = our_nats(base), plain_nats(wrapped)
    assert np.abs(wanted / plain - 1).max() > 1e-4, "the adapter has to matter"
    attach_saved(base, folder)
    assert our_nats(base) == pytest.approx(wanted, rel=1e-5)
    return base


SLOW_FAMILIES = [pytest.param(name, marks=() if name == "llama" else pytest.mark.slow, id=name) for name in FAMILIES]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", SLOW_FAMILIES)
def test_every_kind_is_scored_as_in_peft_or_refused(models: Models, family: str, kind: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = make_config(kind, FAMILIES[family])
    try:
        wrapped = save_adapter(models(family), config, tmp_path / "adapter")
        plain_nats(wrapped)
    except (ValueError, TypeError, AttributeError, NotImplementedError, RuntimeError) as error:
        pytest.skip(f"PEFT itself cannot: {' '.join(str(error).split())[:100]}")
    adapted = any(parameter.requires_grad for parameter in wrapped.parameters())
    refusal = REFUSED.get(kind) if adapted else "holds no weights"
    if refusal is not None:
        with pytest.raises(ModelError, match=refusal):
            attach_saved(load_base(models(family), precision="fp32", device="cpu"), tmp_path / "adapter")
        return
    assert_scored_as_in_peft(models(family), wrapped, tmp_path / "adapter")


def test_no_kind_is_forgotten() -> None:
    assert {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} <= {*KINDS, *WITHOUT_TEXT_ALONE}


@pytest.mark.parametrize("name", lora_configs(FAMILIES["llama"]))
@pytest.mark.parametrize("family", FAMILIES)
def test_lora_is_scored_as_in_peft_wherever_it_goes(models: Models, family: str, name: str, tmp_path: Path) -> None:
    wrapped = save_adapter(models(family), lora_configs(FAMILIES[family])[name], tmp_path / "adapter")
    base = assert_scored_as_in_peft(models(family), wrapped, tmp_path / "adapter")
    fast = {"plain", "patterns", "rslora", "bias of the base", "one layer", "pissa", "dora", "whole norm and embedding"}
    assert base.execution.kind == ("fast" if name in fast else "reference")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layers", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]], ids=str)
@pytest.mark.parametrize("how", ["target_modules", "modules_to_save"])
def test_heads_and_embeddings_tied_or_not(how: str, layers: list[str], tied: bool, tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path / "model", tie_word_embeddings=tied)
    config = lora_configs(FAMILIES["llama"])["plain"]
    setattr(config, how, set(layers) if how == "target_modules" else layers)
    wrapped = save_adapter(folder, config, tmp_path / "adapter")
    assert_scored_as_in_peft(folder, wrapped, tmp_path / "adapter")


def test_embeddings_beside_an_adapter_are_read(models: Models, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(models("llama"), dtype=torch.float32)
    wrapped = get_peft_model(model, lora_configs(FAMILIES["llama"])["plain"]).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.2)
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    assert_scored_as_in_peft(models("llama"), wrapped, tmp_path / "adapter")


def test_embeddings_of_a_resized_model_are_refused(models: Models, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(models("llama"), dtype=torch.float32)
    model.resize_token_embeddings(100)
    wrapped = get_peft_model(model, lora_configs(FAMILIES["llama"])["plain"])
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    base = load_base(models("llama"), precision="fp32", device="cpu")
    with pytest.raises(ModelError, match=r"100 rows for [a-z_.]+, which has 96.*resize_token_emb"):
        attach_saved(base, tmp_path / "adapter")


@pytest.mark.parametrize("change", ["dropped", "added", "renamed", "another embedding"])
def test_a_tensor_without_effect_is_refused(models: Models, change: str, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save_adapter(models("llama"), lora_configs(FAMILIES["llama"])["embedding"], folder)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_embedding_A" in name)
    if change == "another embedding":
        tensors["base_model.model.model.embed_positions.weight"] = torch.ones(4, 4)
    elif change == "added":
        tensors[name.replace("lora_embedding_A", "lora_embedding_C")] = tensors[name].clone()
    else:
        tensor = tensors.pop(name)
        if change == "renamed":
            tensors[name.removeprefix("base_model.model.")] = tensor
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"no place for|it lacks"):
        attach_saved(load_base(models("llama"), precision="fp32", device="cpu"), folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'; accepted: CAUSAL_LM"),
        ({"alora_invocation_tokens": [4, 5]}, "score of a token would depend on later ones"),
        ({"peft_type": "XLORA"}, "mixes other adapters"),
        ({"peft_type": "POLY"}, "number of a task"),
        ({"peft_type": "SHADOW", "shadow_model": "./elsewhere"}, "names a model to load"),
        ({"prompt_tuning_init_state_dict_path": "pickle.bin"}, "names a file to load"),
        ({"num_virtual_tokens": "many"}, ""),
    ],
)
def test_configurations_that_cannot_be_scored(
    models: Models, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    save_adapter(models("llama"), lora_configs(FAMILIES["llama"])["plain"], folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    if said:
        with pytest.raises(ModelError, match=said):
            attach_saved(load_base(models("llama"), precision="fp32", device="cpu"), folder)
    else:
        with pytest.raises(ModelError, match="num_virtual_tokens is not a number"):
            num_virtual_tokens(folder)


def test_virtual_tokens_take_their_share_of_the_context(tiny_model: Models, tmp_path: Path) -> None:
    folder, text = tiny_model("gpt2"), "Some words, and many more of them after these. " * 12
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6)
    wrapped = save_adapter(folder, config, tmp_path / "adapter")
    data = write_jsonl(tmp_path / "a.jsonl", [text])
    result = evaluate(str(folder), data, adapter=tmp_path / "adapter", precision="fp32")
    assert result["context_length"] == 58, "the tiny model reads 64 tokens"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > 2 * 58
    nats = 0.0
    for start in range(0, len(ids), 58):
        window = [tokenizer.bos_token_id, *ids[start : start + 58]]
        with torch.no_grad():
            logits = wrapped(input_ids=torch.tensor([window[:-1]])).logits[0, 6:].double()
        nats += float(torch.nn.functional.cross_entropy(logits, torch.tensor(window[1:]), reduction="sum"))
    assert result["negative_log_likelihood"] == pytest.approx(nats, rel=1e-5)
    with pytest.raises(InputError, match="reads 1 to 58 tokens"):
        evaluate(str(folder), data, adapter=tmp_path / "adapter", context_length=64)
    full = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=64)
    save_adapter(folder, full, tmp_path / "full")
    with pytest.raises(InputError, match="fill the whole context"):
        evaluate(str(folder), data, adapter=tmp_path / "full")


def test_of_several_adapters_one_is_to_be_named(models: Models, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(models("llama"), dtype=torch.float32)
    wrapped = get_peft_model(model, lora_configs(FAMILIES["llama"])["plain"], adapter_name="first")
    wrapped.add_adapter("second", lora_configs(FAMILIES["llama"])["dora"])
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    wrapped.eval().save_pretrained(tmp_path / "adapters")
    base = load_base(models("llama"), precision="fp32", device="cpu")
    with pytest.raises(ModelError, match="adapters in its folders first, second: name one of them"):
        attach_saved(base, tmp_path / "adapters")
    for name in ("first", "second"):
        wrapped.set_adapter(name)
        assert_scored_as_in_peft(models("llama"), wrapped, tmp_path / "adapters" / name)


def test_bfloat16_adapters_are_close_to_peft_s(models: Models, tmp_path: Path) -> None:
    for name in ("plain", "embedding", "head"):
        folder = tmp_path / name.replace(" ", "_")
        save_adapter(models("llama"), lora_configs(FAMILIES["llama"])[name], folder)
        model = AutoModelForCausalLM.from_pretrained(models("llama"), dtype=torch.bfloat16)
        wanted = plain_nats(PeftModel.from_pretrained(model, str(folder)).eval())
        base = load_base(models("llama"), precision="bf16", device="cpu")
        attach_saved(base, folder)
        assert our_nats(base) == pytest.approx(wanted, rel=1e-2)
