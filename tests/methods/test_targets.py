"""What is planned from weight files is what is attached to the loaded model, on every architecture, by full path."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassClassValidationError
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from lorabench.core.errors import ConfigError, ModelError
from lorabench.methods.attach import attach
from lorabench.methods.peft import PeftSettings, make_config
from lorabench.methods.registry import method_of
from lorabench.methods.settings import AdapterSettings
from lorabench.models.base import FrozenBase, freeze
from lorabench.models.catalog import get_model, list_models
from lorabench.models.linears import (
    SPLIT_WHEN_LOADED,
    StoredLinears,
    body_name,
    can_adapt,
    is_tied,
    read_stored_linears,
)
from lorabench.models.planning import plan_model
from lorabench.models.shape import read_config, read_model_shape
from tests.methods.families import DENSE, WITH_EXPERTS, save_tiny

METHODS = ("lora", "rslora", "dora", "pissa", "full")


def stored(folder: Path) -> StoredLinears:
    shapes: dict[str, tuple[int, ...]] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return read_stored_linears(shapes, read_config(folder))


def settings(target: str = "all-linear", method: str = "lora", rank: int = 2) -> AdapterSettings:
    return AdapterSettings(method=method, rank=rank, target_modules=target)


def resolve_targets(shape: Any, settings: AdapterSettings) -> list[str]:
    return method_of(settings).resolve_targets(shape, settings)


def linear_modules(model: Any) -> dict[str, tuple[int, int]]:
    """Every linear layer but the output head, found by its type."""
    head = model.get_output_embeddings()
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            found[path] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            found[path] = (module.weight.shape[0], module.weight.shape[1])
    return found


def adapted(model: Any) -> set[str]:
    return {path for path, module in model.named_modules() if isinstance(module, LoraLayer)}


def num_trainable(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def base_of(model: Any) -> FrozenBase:
    return freeze(model, torch.device("cpu"), "fp32")


@pytest.mark.parametrize("architecture", DENSE)
def test_attention_and_mlp_are_disjoint_and_together_all_linear(architecture: str, tmp_path: Path) -> None:
    model = save_tiny(architecture, tmp_path)
    shape = stored(tmp_path)
    every = {path: size for path, size in linear_modules(model).items() if can_adapt(path, architecture)}
    assert shape.linears == every
    assert shape.num_parameters == sum(weight.numel() for weight in model.parameters())
    parts: dict[str, set[str]] = {}
    for keyword in ("attention", "mlp"):
        if (architecture, keyword) == ("mamba", "mlp"):
            with pytest.raises(ConfigError, match=r"no linear layers of mlp\. Accepted: all-linear, attention, or"):
                resolve_targets(shape, settings(keyword))
            parts[keyword] = set()
        else:
            parts[keyword] = set(resolve_targets(shape, settings(keyword)))
    assert parts["attention"]
    assert parts["attention"].isdisjoint(parts["mlp"])
    assert parts["attention"] | parts["mlp"] == set(every) == set(resolve_targets(shape, settings()))
    base = base_of(model)
    for keyword, expected in {**parts, "all-linear": set(every)}.items():
        if not expected:
            continue
        adapter = attach(base, settings(keyword), seed=0)
        assert adapted(base.model) == expected
        adapter.detach()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "architecture", ["gpt2", "openai-gpt", "gpt_neo", "opt", "falcon", "rwkv", "phi3", "gemma3_text"]
)
def test_the_planned_number_is_that_of_plain_peft(architecture: str, method: str, tmp_path: Path) -> None:
    model = save_tiny(architecture, tmp_path)
    shape = stored(tmp_path)
    chosen = settings(method=method)
    planned = method_of(chosen).count_trainable(shape, chosen, resolve_targets(shape, chosen))
    base = base_of(model)
    adapter = attach(base, settings(method=method), seed=0)
    assert planned == num_trainable(base.model) == adapter.num_trainable
    adapter.detach()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    if method != "full":
        plain = get_peft_model(
            plain,
            LoraConfig(
                r=2,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
                use_dora=method == "dora",
                use_rslora=method == "rslora",
                init_lora_weights="pissa" if method == "pissa" else True,
                fan_in_fan_out=architecture in ("gpt2", "openai-gpt"),
            ),
        )
    assert planned == num_trainable(plain)


NAMED = {
    "q_proj": ("llama", {f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}),
    "layers.0.self_attn.q_proj": ("llama", {"model.layers.0.self_attn.q_proj"}),
    "model.layers.1.mlp.up_proj,k_proj": (
        "llama",
        {"model.layers.1.mlp.up_proj", *(f"model.layers.{layer}.self_attn.k_proj" for layer in (0, 1))},
    ),
    "attention,up_proj": (
        "llama",
        {f"model.layers.{layer}.self_attn.{name}_proj" for layer in (0, 1) for name in "qkvo"}
        | {f"model.layers.{layer}.mlp.up_proj" for layer in (0, 1)},
    ),
    "c_proj": ("gpt2", {f"transformer.h.{layer}.{part}.c_proj" for layer in (0, 1) for part in ("attn", "mlp")}),
    "attn.c_proj": ("gpt2", {f"transformer.h.{layer}.attn.c_proj" for layer in (0, 1)}),
    "1.mlp.c_proj": ("gpt2", {"transformer.h.1.mlp.c_proj"}),
    "output.dense": (
        "bert",
        {f"bert.encoder.layer.{layer}.{part}output.dense" for layer in (0, 1) for part in ("attention.", "")},
    ),
}


@pytest.mark.parametrize("target", NAMED)
def test_names_and_ends_of_paths_mean_what_they_say(target: str, tmp_path: Path) -> None:
    architecture, expected = NAMED[target]
    base = base_of(save_tiny(architecture, tmp_path))
    shape = stored(tmp_path)
    adapter = attach(base, settings(target), seed=0)
    assert set(resolve_targets(shape, settings(target))) == adapted(base.model) == set(adapter.module_names) == expected
    adapter.save(tmp_path / "adapter")
    read = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path), tmp_path / "adapter")
    assert adapted(read.base_model.model) == expected


@pytest.mark.parametrize("target", ["attention", "mlp"])
def test_gpt2_in_many_layers_is_adapted_where_it_is_said(target: str, tmp_path: Path) -> None:
    """With many layers PEFT shortens the paths that it is given, and must not take in the other part's `c_proj`."""
    base = base_of(save_tiny("gpt2", tmp_path, n_layer=12))
    names = {"attention": ("attn.c_attn", "attn.c_proj"), "mlp": ("mlp.c_fc", "mlp.c_proj")}[target]
    expected = {f"transformer.h.{layer}.{name}" for layer in range(12) for name in names}
    adapter = attach(base, settings(target), seed=0)
    assert adapted(base.model) == expected
    adapter.save(tmp_path / "adapter")
    read = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path), tmp_path / "adapter")
    assert adapted(read.base_model.model) == expected


@pytest.mark.parametrize("architecture", WITH_EXPERTS)
@pytest.mark.parametrize("target", ["all-linear", "mlp", "gate", "router", "experts", "down_proj", "w1"])
def test_experts_are_refused_before_anything_is_loaded(architecture: str, target: str, tmp_path: Path) -> None:
    model = save_tiny(architecture, tmp_path)
    with pytest.raises(ConfigError) as planned:
        resolve_targets(stored(tmp_path), settings(target))
    with pytest.raises(ConfigError) as attached:
        attach(base_of(model), settings(target), seed=0)
    for refusal in (planned, attached):
        message = str(refusal.value)
        assert message.startswith("adapter.target_modules: ")
        assert "Accepted: attention, or names among" in message
        assert "q_proj" in message
        assert " down_proj" not in message
    assert not adapted(model)


@pytest.mark.parametrize("architecture", WITH_EXPERTS)
def test_attention_beside_experts_is_adapted(architecture: str, tmp_path: Path) -> None:
    model = save_tiny(architecture, tmp_path)
    planned = resolve_targets(stored(tmp_path), settings("attention"))
    assert set(planned) == {path for path in linear_modules(model) if ".self_attn." in path}
    adapter = attach(base_of(model), settings("attention"), seed=0)
    chosen = settings("attention")
    trainable = method_of(chosen).count_trainable(stored(tmp_path), chosen, planned)
    adapter.require_as_planned(planned, trainable)


def test_a_shared_expert_can_be_named(tmp_path: Path) -> None:
    base = base_of(save_tiny("qwen2_moe", tmp_path))
    target = "shared_expert.down_proj"
    assert resolve_targets(stored(tmp_path), settings(target)) == attach(base, settings(target), seed=0).module_names
    assert adapted(base.model) == {f"model.layers.{layer}.mlp.shared_expert.down_proj" for layer in (0, 1)}


def test_whatever_differs_from_the_plan_is_refused(tmp_path: Path) -> None:
    base = base_of(save_tiny("llama", tmp_path))
    adapter = attach(base, settings("q_proj"), seed=0)
    planned = adapter.module_names
    adapter.require_as_planned(planned, adapter.num_trainable)
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.up_proj was planned but carries no adapter"):
        adapter.require_as_planned([*planned, "model.layers.0.mlp.up_proj"], adapter.num_trainable)
    with pytest.raises(ModelError, match="carries an adapter but was not planned"):
        adapter.require_as_planned(planned[1:], adapter.num_trainable)
    with pytest.raises(ModelError, match="trainable parameters were planned"):
        adapter.require_as_planned(planned, adapter.num_trainable + 1)


def test_a_failed_attachment_leaves_the_base_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of(save_tiny("gpt2", tmp_path))
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}

    def fail(*_: Any) -> None:
        raise MemoryError

    for method in ("lora", "pissa"):
        with monkeypatch.context() as patch:
            patch.setattr("lorabench.methods.adapter.Adapter.require_as_planned", fail)
            with pytest.raises(MemoryError):
                attach(base, settings(method=method), seed=0)
        after = base.model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert not num_trainable(base.model)
        adapter = attach(base, settings(), seed=0)
        assert adapted(base.model) == set(adapter.module_names)
        adapter.detach()


@pytest.mark.parametrize("architecture", ["gpt2", "bloom", "llama", "opt", "gpt_neox", "bert"])
def test_a_body_saved_by_itself_is_planned_by_the_names_it_is_loaded_under(architecture: str, tmp_path: Path) -> None:
    """As the first GPT-2 and BLOOM repositories are: `h.0…` rather than `transformer.h.0…`."""
    model = save_tiny(architecture, tmp_path / "whole")
    model.base_model.save_pretrained(tmp_path / "body")
    body = {path for path in stored(tmp_path / "body").linears if not path.startswith("cls.")}
    assert {path for path in linear_modules(model) if not path.startswith("cls.")} == body


@pytest.mark.parametrize("architecture", sorted(SPLIT_WHEN_LOADED))
def test_a_model_whose_layers_are_split_when_it_is_loaded_is_refused_in_the_plan(
    architecture: str, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model("smollm2"), tmp_path / "model")
    plan_model(str(folder))
    (folder / "config.json").write_text(json.dumps(read_config(folder) | {"model_type": architecture}))
    with pytest.raises(ModelError, match=f"type {architecture} are loaded with other layers .* evaluate scores them"):
        plan_model(str(folder))


def test_layers_that_are_not_loaded_are_not_planned(tmp_path: Path) -> None:
    """Some folders hold a layer more, which predicts further tokens."""
    save_tiny("llama", tmp_path, num_hidden_layers=3)
    config = read_config(tmp_path) | {"num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert stored(tmp_path).linears == linear_modules(loaded)
    assert stored(tmp_path).num_parameters == sum(weight.numel() for weight in loaded.parameters())


def test_what_is_known_of_architectures_is_what_transformers_does() -> None:
    for model_type, names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        name = names if isinstance(names, str) else names[0]
        if model_type in {"git", "gpt-sw3", "llama4", "llama4_text", "mllama"}:  # gpt-sw3's folders say gpt2
            continue
        assert body_name(model_type) == getattr(transformers, name).base_model_prefix, model_type
        with contextlib.suppress(StrictDataclassClassValidationError):  # one has no default configuration
            tied = getattr(CONFIG_MAPPING[model_type](), "tie_word_embeddings", False)
            assert is_tied({"model_type": model_type}) == bool(tied), model_type


@pytest.mark.parametrize("name", [entry.name for entry in list_models() if entry.source != "hub"])
def test_a_catalogue_entry_says_what_the_loaded_model_has(name: str) -> None:
    """Paths and sizes are those of Transformers' own model; the hub's are in `tests/models/test_real_sizes.py`."""
    entry = get_model(name)
    shape = entry.model_shape()
    sizes = {
        "vocab_size": entry.vocabulary_size,
        "num_hidden_layers": entry.num_layers,
        "hidden_size": entry.hidden_size,
        "max_position_embeddings": entry.max_context_length,
    }
    if entry.family == "gpt2":
        inner = entry.linear_modules["mlp.c_fc"][1]
        own = {"n_inner": inner, "n_head": 4, "n_embd": entry.hidden_size, "n_layer": entry.num_layers}
        own["n_positions"] = entry.max_context_length
        config = CONFIG_MAPPING["gpt2"](vocab_size=entry.vocabulary_size, **own)
    elif entry.family == "gpt-neox":
        inner = entry.linear_modules["mlp.dense_h_to_4h"][1]
        config = CONFIG_MAPPING["gpt_neox"](intermediate_size=inner, num_attention_heads=4, **sizes)
    else:
        modules = entry.linear_modules
        width = 64 if entry.family == "llama" else modules["self_attn.k_proj"][1]
        heads = modules["self_attn.q_proj"][1] // width, modules["self_attn.k_proj"][1] // width
        own = {"num_attention_heads": heads[0], "num_key_value_heads": heads[1], "head_dim": width}
        inner = modules["mlp.up_proj"][1]
        tied = entry.family == "gemma" or entry.name.startswith("smollm2")
        config = CONFIG_MAPPING[entry.family](intermediate_size=inner, tie_word_embeddings=tied, **own, **sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape.linears == linear_modules(model)
    assert shape.num_parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "is no parameter of the model; give the end of the name"),
        ({"rank_pattern": {"q_prj": 2}}, "adapter.config.rank_pattern: 'q_prj' matches no adapted module"),
        ({"layer_replication": [[0, 2], [0, 2]]}, "layer_replication repeats layers of the base"),
    ],
)
def test_what_peft_would_leave_out_without_a_word_is_refused(
    tiny_model: Callable[[str], Path], values: dict[str, Any], message: str
) -> None:
    settings = PeftSettings(method="peft", config={"peft_type": "LORA", "r": 2, **values})
    with pytest.raises(ConfigError, match=re.escape(message)):
        method_of(settings).resolve_targets(read_model_shape(tiny_model("smollm2")), settings)


def test_what_lorabench_sets_is_left_out_of_a_configuration(tiny_model: Callable[[str], Path]) -> None:
    settings = PeftSettings(method="peft", config={"peft_type": "LORA", "task_type": "SEQ_CLS"})
    with pytest.raises(ConfigError, match=r"adapter.config: task_type is set by lorabench; leave it out"):
        make_config(read_model_shape(tiny_model("smollm2")), settings)
