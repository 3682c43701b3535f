from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lorabench.core.errors import ModelError
from lorabench.fast.choice import kernels_for
from lorabench.fast.kernels import PlainKernels
from lorabench.methods.attach import attach
from lorabench.models.base import FrozenBase, freeze
from tests.fast.fast_cases import (
    FAMILIES,
    REFERENCE,
    alone_nll,
    attached_pair,
    batches,
    losses_and_gradients,
    packed,
    random_base,
    randomise,
    settings,
    tiny_base,
)

TinyModel = Callable[[str], Path]
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["compiled", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of computing the passes around the products."""
    chosen = kernels_for("cpu") if request.param == "compiled" else PlainKernels()
    assert chosen.name == request.param
    monkeypatch.setattr("lorabench.models.base.kernels_for", lambda *which: chosen)
    return str(request.param)


def assert_same_training(make: Callable[[], FrozenBase], adapter: Any, steps: int = 50, **rows: Any) -> None:
    (fast, ours), (reference, theirs) = attached_pair(make, adapter)
    work = batches(fast, steps, **rows)
    both = zip(losses_and_gradients(fast, ours, work), losses_and_gradients(reference, theirs, work), strict=True)
    seen = []
    for (loss, gradients), (wanted_loss, wanted) in both:
        assert loss == pytest.approx(wanted_loss, rel=LOSS_TOLERANCE)
        for name, gradient in gradients.items():
            scale = wanted[name].abs().max()
            assert (gradient - wanted[name]).abs().max() <= GRADIENT_TOLERANCE * scale, name
        seen.append(loss)
    assert len(set(seen)) == steps


@pytest.mark.parametrize("family", FAMILIES)
def test_fifty_steps_are_those_of_peft(tiny_model: TinyModel, family: str, kernels: str) -> None:
    assert_same_training(lambda: tiny_base(tiny_model(family)), settings())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.2},
        {"method": "rslora", "rank": 8},
        {"target_modules": "attention"},
        {"target_modules": "mlp"},
        {"target_modules": "attention", "dropout": 0.1},
        {"method": "pissa"},
        {"method": "dora"},
        {"method": "lora_fa"},
        {"method": "lora_fa", "dropout": 0.1},
        {"method": "vera"},
        {"method": "vera", "dropout": 0.1},
        {"rank_pattern": {"(k_proj|c_proj|dense)": 7}, "alpha_pattern": {"(q_proj|c_attn|query_key_value)": 3.0}},
    ],
    ids=str,
)
def test_every_kind_of_adapter_trains_as_in_peft(
    tiny_model: TinyModel, family: str, changes: Any, kernels: str
) -> None:
    assert_same_training(lambda: tiny_base(tiny_model(family)), settings(**changes), steps=6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("module", ["first", "last"])
def test_one_adapted_module_is_enough(tiny_model: TinyModel, family: str, module: str, kernels: str) -> None:
    names = {
        "gpt2": ("c_attn", "c_fc"),
        "pythia": ("query_key_value", "dense_4h_to_h"),
        "gemma": ("k_proj", "up_proj"),
        "smollm2": ("v_proj", "down_proj"),
    }[family]
    adapter = settings(target_modules=names[0 if module == "first" else 1])
    assert_same_training(lambda: tiny_base(tiny_model(family)), adapter, steps=4)


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_that_are_trained_whole_train_as_in_peft(tiny_model: TinyModel, family: str, kernels: str) -> None:
    names = {
        "gpt2": "wte,lm_head,ln_2,ln_f",
        "pythia": "lm_head,embed_in,input_layernorm",
        "gemma": "lm_head,input_layernorm,model.norm",
        "smollm2": "embed_tokens,post_attention_layernorm",
    }[family]
    assert_same_training(lambda: tiny_base(tiny_model(family)), settings(modules_to_save=names), steps=4)


def other_models() -> dict[str, tuple[Any, Any]]:
    """Configurations that the tiny repositories do not show."""
    llama = {
        "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 512,
    }  # fmt: skip
    neox = {
        "vocab_size": 300, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 512,
    }  # fmt: skip
    return {
        "llama-untied-biased": (
            transformers.LlamaForCausalLM,
            transformers.LlamaConfig(**llama, attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
        ),
        "llama-tied-gelu": (
            transformers.LlamaForCausalLM,
            transformers.LlamaConfig(**llama, tie_word_embeddings=True, hidden_act="gelu"),
        ),
        "neox-sequential-full-rotary": (
            transformers.GPTNeoXForCausalLM,
            transformers.GPTNeoXConfig(**neox, use_parallel_residual=False, rotary_pct=1.0, hidden_act="gelu_new"),
        ),
        "neox-tied": (
            transformers.GPTNeoXForCausalLM,
            transformers.GPTNeoXConfig(**neox, tie_word_embeddings=True, rotary_pct=0.25),
        ),
        "gpt2-untied": (
            transformers.GPT2LMHeadModel,
            transformers.GPT2Config(
                vocab_size=300, n_embd=48, n_layer=2, n_head=3, n_positions=512, tie_word_embeddings=False
            ),
        ),
        "gemma-grouped": (
            transformers.GemmaForCausalLM,
            transformers.GemmaConfig(**llama, head_dim=16, hidden_act="gelu_pytorch_tanh"),
        ),
    }


@pytest.mark.parametrize("name", sorted(other_models()))
def test_other_configurations_train_as_in_peft(name: str, kernels: str) -> None:
    model_class, config = other_models()[name]
    long_rows = ((150, 7, 260), (1, 2, 130, 128, 129))
    assert_same_training(lambda: random_base(model_class, config), settings(), steps=5, rows=long_rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_packing_changes_nothing(tiny_model: TinyModel, family: str, kernels: str) -> None:
    base = tiny_base(tiny_model(family))
    randomise(attach(base, settings(), seed=0))
    for unscored in (0, 3):
        batch = packed([(5, 40, 1, 18), (64,), (2, 2, 2)], base.model.config.vocab_size, num_unscored=unscored)
        wanted = alone_nll(base.model, batch)
        assert torch.allclose(base.token_nll(batch).double(), wanted, rtol=1e-5, atol=1e-5)
        assert float(base.loss(batch).detach()) == pytest.approx(float(wanted.sum()), rel=LOSS_TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_adapter_changes_nothing(tiny_model: TinyModel, family: str, kernels: str) -> None:
    base = tiny_base(tiny_model(family))
    batch = batches(base, 1)[0]
    before = base.token_nll(batch)
    adapter = attach(base, settings(dropout=0.3), seed=0)
    assert torch.equal(base.token_nll(batch), before)
    randomise(adapter)
    assert not torch.allclose(base.token_nll(batch), before, atol=1e-2)
    adapter.detach()
    assert torch.equal(base.token_nll(batch), before)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_with_gradient_and_without_are_the_same(
    tiny_model: TinyModel, family: str, precision: Any, kernels: str
) -> None:
    base = tiny_base(tiny_model(family), precision)
    randomise(attach(base, settings(), seed=0))
    batch = batches(base, 1)[0]
    assert float(base.loss(batch).detach()) == pytest.approx(float(base.token_nll(batch).double().sum()), rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_close_to_float32(tiny_model: TinyModel, family: str, kernels: str) -> None:
    wide, narrow = tiny_base(tiny_model(family), spread=1.5), tiny_base(tiny_model(family), "bf16", spread=1.5)
    work = batches(wide, 30)
    runs = [
        [loss for loss, _ in losses_and_gradients(base, attach(base, settings(), seed=3), work, 3e-2)]
        for base in (wide, narrow)
    ]
    assert narrow.execution.kind == "fast"
    for ours, wanted in zip(*runs, strict=True):
        assert ours == pytest.approx(wanted, rel=5e-3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "dora", "dropout": 0.1}, "DoRA with dropout"),
        ({"method": "full"}, "weights of the base are trained"),
    ],
    ids=str,
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_fast_path_does_not_cover_says_so(
    tiny_model: TinyModel, family: str, changes: Any, reason: str
) -> None:
    base = tiny_base(tiny_model(family))
    adapter = attach(base, settings(**changes), seed=0)
    assert base.execution.kind == "reference"
    assert reason in base.execution.reason
    losses = [loss for loss, _ in losses_and_gradients(base, adapter, batches(base, 2))]
    assert all(0.0 < loss < 20.0 for loss in losses)
    adapter.detach()
    assert base.execution.kind == "fast"


def test_a_model_without_a_fast_path_is_computed_by_transformers() -> None:
    config = transformers.OlmoConfig(
        vocab_size=200, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    base = random_base(transformers.OlmoForCausalLM, config)
    attach(base, settings(), seed=0)
    assert base.execution.kind == "reference"
    assert "OlmoForCausalLM" in base.execution.reason
    batch = packed([(9, 20), (30,)], 200)
    assert torch.allclose(base.token_nll(batch).double(), alone_nll(base.model, batch), atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
        {"hidden_act": "relu"},
    ],
    ids=str,
)
def test_an_unknown_part_of_a_known_family_is_left_to_transformers(changes: Any) -> None:
    config = transformers.LlamaConfig(
        vocab_size=200, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, **changes,
    )  # fmt: skip
    base = random_base(transformers.LlamaForCausalLM, config)
    assert base.execution.kind == "reference"
    batch = packed([(9, 20), (30,)], 200)
    assert torch.allclose(base.token_nll(batch).double(), alone_nll(base.model, batch), atol=1e-5)


def test_the_models_own_dropout_stays_off_on_the_reference_path() -> None:
    config = transformers.GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=2, n_positions=64, resid_pdrop=0.5)
    base = random_base(transformers.GPT2LMHeadModel, config)
    attach(base, settings(dropout=0.4), seed=0)
    base.use_reference_path(REFERENCE)
    batch = packed([(30,)], 200)
    torch.manual_seed(1)
    first = float(base.loss(batch).detach())
    torch.manual_seed(2)
    assert float(base.loss(batch).detach()) == first, "B is zero, so only the base's own dropout could differ"


def test_nothing_is_computed_below_the_lowest_adapter(tiny_model: TinyModel) -> None:
    base = tiny_base(tiny_model("smollm2"))
    attach(base, settings(target_modules="model.layers.1.mlp.down_proj"), seed=0)
    loss = base.loss(batches(base, 1)[0])
    functions, waiting = set(), [loss.grad_fn]
    while waiting:
        function = waiting.pop()
        if function is not None and function not in functions:
            functions.add(function)
            waiting += [upstream for upstream, _ in function.next_functions]
    names = sorted(type(function).__name__ for function in functions)
    assert [name for name in names if "Linear" in name or "Attention" in name] == ["ActivationLinearBackward"]


def test_freeze_takes_a_model_as_it_is() -> None:
    config = transformers.GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    base = freeze(transformers.GPT2LMHeadModel(config), torch.device("cpu"), "fp32")
    assert base.execution.kind == "fast"
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


@pytest.mark.parametrize("where", ["input_ids", "targets"])
@pytest.mark.parametrize("model_class", [transformers.GPT2LMHeadModel, transformers.Qwen2ForCausalLM])
def test_a_token_without_an_embedding_or_a_logit_is_refused(model_class: Any, where: str) -> None:
    sizes = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {} if model_class is transformers.GPT2LMHeadModel else {"num_key_value_heads": 2, "intermediate_size": 48}
    base = random_base(model_class, model_class.config_class(**sizes, **more))
    batch = packed([(9, 20), (30,)], 200)
    base.token_nll(batch)
    getattr(batch, where)[5] = 200
    for score in (base.token_nll, base.loss):
        with pytest.raises(ModelError, match="holds token 200, but the model knows 200 tokens"):
            score(batch)
