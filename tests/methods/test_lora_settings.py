"""Ranks and alphas of single layers: what is attached is what PEFT makes of them; what means nothing is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lorabench.core.errors import ConfigError
from lorabench.experiment.adapter_axes import make_adapter, read_adapter_axes
from lorabench.experiment.identity import run_id
from lorabench.methods.attach import attach
from lorabench.methods.lora_settings import LoraSettings
from lorabench.methods.registry import METHODS
from lorabench.methods.saved import saved_adapter
from lorabench.models.base import load_base
from lorabench.models.shape import read_model_shape
from tests.experiment.test_identity import make_spec
from tests.fast.fast_cases import batches, randomise

TinyModel = Callable[[str], Path]
RANKS, ALPHAS = {"down_proj": 6, r"layers\.0\.self_attn\.[qk]_proj": 2}, {"self_attn.o_proj": 5.0}


def by_layer(model: Any) -> dict[str, tuple[int, float]]:
    """Rank and scaling of each adapted layer."""
    return {
        name.removeprefix("base_model.model."): (len(module.lora_A["default"].weight), module.scaling["default"])
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_each_layer_has_the_rank_and_the_scaling_that_peft_gives_it(tiny_model: TinyModel, method: str) -> None:
    folder = tiny_model("smollm2")
    settings = LoraSettings(method=method, rank=4, alpha="1r", rank_pattern=RANKS, alpha_pattern=ALPHAS)
    base = load_base(folder, precision="fp32", device="cpu")
    attach(base, settings, seed=0)
    assert base.execution.kind == "fast"
    theirs = LoraConfig(
        r=4, lora_alpha=4, target_modules="all-linear", rank_pattern=RANKS, alpha_pattern=ALPHAS,
        use_rslora=method == "rslora", task_type="CAUSAL_LM",
    )  # fmt: skip
    wanted = by_layer(get_peft_model(AutoModelForCausalLM.from_pretrained(folder), theirs))
    assert by_layer(base.model) == wanted
    assert {rank for rank, _ in wanted.values()} == {2, 4, 6}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"rank_pattern": {"down_proj": 8, "q_prj": 2}}, "rank_pattern: 'q_prj' matches no adapted module. Accepted: "),
        ({"alpha_pattern": {"lm_head": 2.0}}, "alpha_pattern: 'lm_head' matches no adapted module"),
        ({"target_modules": "mlp", "alpha_pattern": {"q_proj": 2.0}}, "names among down_proj, gate_proj, up_proj"),
        ({"rank_pattern": {"down_proj": 8, "mlp.down_proj": 4}}, "'down_proj' and 'mlp.down_proj' both match"),
        ({"rank_pattern": {"([a-z0-9_.]+)*!": 4}}, "takes more than 1 s of processor time on the model's module names"),
        ({"rank_pattern": {"k_proj": 4000}}, "adapter.rank_pattern: 4000 is larger than the layer k_proj"),
        ({"rank": 4000, "rank_pattern": {"k_proj": 4}}, "adapter.rank: 4000 is larger than the layer"),
        (
            {"modules_to_save": "lm_hed"},
            "modules_to_save: 'lm_hed' matches no module of the model. Accepted: ",
        ),
        ({"modules_to_save": "down_proj"}, "takes in model.layers.0.mlp.down_proj, which carries an adapter"),
    ],
)
def test_names_that_mean_nothing_are_refused_in_the_plan(
    tiny_model: TinyModel, patterns: dict[str, Any], message: str
) -> None:
    shape = read_model_shape(tiny_model("smollm2"))
    with pytest.raises(ConfigError, match=re.escape(message)):
        METHODS.get("lora").resolve_targets(shape, LoraSettings(**{"rank": 4, **patterns}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rank_pattern", {"(": 2}, "regular expressions as keys"),
        ("rank_pattern", {"(?i)Q_PROJ": 2}, "regular expressions as keys"),
        ("rank_pattern", {"q_proj": 0}, "greater than or equal to 1"),
        ("alpha_pattern", {"": 2.0}, "names of modules"),
        ("alpha_pattern", "q_proj", "should be a mapping"),
        ("alpha", "0r", "positive number or a multiple"),
    ],
)
def test_values_that_are_no_patterns_are_refused_by_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"adapter\.{key}: .*{re.escape(message)}"):
        read_adapter_axes("adapter", {"method": "lora", key: value})


def test_several_modules_are_one_value_and_their_order_means_nothing() -> None:
    axes = read_adapter_axes("adapter", {"modules_to_save": [None, "lm_head", ["norm", "lm_head"]]})
    assert axes["modules_to_save"] == [None, "lm_head", "norm,lm_head"]
    one, same = (
        make_spec(adapter=LoraSettings(rank=8, modules_to_save=names)) for names in ("norm,lm_head", "lm_head, norm")
    )
    assert run_id(one) == run_id(same) != run_id(make_spec())


def test_a_quantised_layer_is_not_trained_whole(tiny_model: TinyModel) -> None:
    base = load_base(tiny_model("smollm2"), precision="bf16", device="cpu", quantization="fp8")
    settings = LoraSettings(rank=4, target_modules="attention", modules_to_save="down_proj")
    with pytest.raises(ConfigError, match="down_proj is quantised"):
        attach(base, settings, seed=0)


@pytest.mark.parametrize("names", ["norm,lm_head", "embed_tokens,post_attention_layernorm"])
def test_on_a_bfloat16_base_they_are_scored_from_disk_as_they_were_trained(
    tiny_model: TinyModel, names: str, tmp_path: Path
) -> None:
    base = load_base(tiny_model("smollm2"), precision="bf16", device="cpu")
    adapter = attach(base, LoraSettings(rank=4, modules_to_save=names), seed=0)
    assert base.execution.kind == "fast"
    randomise(adapter)
    assert {parameter.dtype for parameter in adapter.parameters} == {torch.float32}
    adapter.save(tmp_path / "adapter")
    batch = batches(base, 1)[0]
    scores = base.token_nll(batch)
    adapter.detach()
    before = base.token_nll(batch)
    with saved_adapter(base, tmp_path / "adapter"):
        assert torch.equal(base.token_nll(batch), scores)
    assert torch.equal(base.token_nll(batch), before)
    assert not torch.equal(before, scores)


def test_patterns_are_an_axis_and_stand_in_tables_where_they_are_set() -> None:
    axes = read_adapter_axes("adapter", {"rank_pattern": [{}, {"down_proj": 32}]})
    plain, patterned = (make_adapter({"rank_pattern": pattern}) for pattern in axes["rank_pattern"])
    assert plain.method_settings is None
    assert patterned.method_settings == "rank_pattern {down_proj: 32}"
