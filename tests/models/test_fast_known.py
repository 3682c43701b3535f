"""The fast path knows modules by exact type: whatever else stands in their place is computed as Transformers does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.models.llama import modeling_llama as llama

from lorabench.fast.known import can_pack
from lorabench.methods.attach import attach
from lorabench.models.base import FrozenBase
from tests.fast.fast_cases import FAMILIES, alone_nll, batches, packed, randomise, settings, tiny_base

TinyModel = Callable[[str], Path]
EMBEDDINGS = {
    "smollm2": "model.embed_tokens",
    "gemma": "model.embed_tokens",
    "gpt2": "transformer.wte",
    "pythia": "gpt_neox.embed_in",
}
NORMS = {
    "smollm2": "model.norm",
    "gemma": "model.layers.1.input_layernorm",
    "gpt2": "transformer.h.0.ln_2",
    "pythia": "gpt_neox.final_layer_norm",
}
LAYERS = {
    "smollm2": "model.layers.0.mlp",
    "gemma": "model.layers.1.self_attn.q_proj",
    "gpt2": "transformer.h.0",
    "pythia": "gpt_neox.layers.0.attention",
}


def assert_computed_by_its_own_modules(base: FrozenBase, before: Tensor) -> None:
    """The score is that of the model's own forward pass, which is another one now, and of each document by itself."""
    base.choose_path()
    assert base.execution.kind == "reference", base.execution
    assert base.execution.reason.endswith("not covered by the fast path; one document a pass")
    batch = batches(base, 1)[0]
    ours = base.token_nll(batch)
    assert torch.allclose(ours.double(), alone_nll(base.model, batch), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, before, atol=1e-3)


def renamed_subclass(module: nn.Module, scale: float) -> None:
    """Give a module a class of the same name that computes something else."""
    known: Any = type(module)

    def forward(self: Any, *inputs: Any, **options: Any) -> Any:
        output = known.forward(self, *inputs, **options)
        return (output[0] * scale, *output[1:]) if isinstance(output, tuple) else output * scale

    module.__class__ = type(known.__name__, (known,), {"forward": forward})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parts", [EMBEDDINGS, NORMS, LAYERS], ids=["embedding", "norm", "layer"])
@pytest.mark.parametrize("how", ["subclass", "hook", "pre-hook", "forward", "parametrization"])
def test_a_module_that_was_changed_is_not_known(
    tiny_model: TinyModel, family: str, parts: dict[str, str], how: str
) -> None:
    base = tiny_base(tiny_model(family))
    before = base.token_nll(batches(base, 1)[0])
    module = base.model.get_submodule(parts[family])

    def scaled(output: Any) -> Any:
        return (output[0] * 1.5, *output[1:]) if isinstance(output, tuple) else output * 1.5

    if how == "subclass":
        renamed_subclass(module, 1.5)
    elif how == "hook":
        module.register_forward_hook(lambda module, inputs, output: scaled(output))
    elif how == "pre-hook":
        if parts is not NORMS:
            pytest.skip("what these read are ids, or named")
        module.register_forward_pre_hook(
            lambda module, inputs: (inputs[0] * torch.linspace(0.2, 2.0, inputs[0].shape[-1]),)
        )
    elif how == "forward":
        known = module.forward
        module.forward = lambda *inputs, **options: scaled(known(*inputs, **options))
    else:
        weight = next(name for name, _ in module.named_parameters() if name.endswith("weight"))
        owner = module.get_submodule(weight.rpartition(".")[0])

        class Scaled(nn.Module):
            def forward(self, weight: Tensor) -> Tensor:
                return weight * 1.5

        nn.utils.parametrize.register_parametrization(owner, "weight", Scaled())
    assert_computed_by_its_own_modules(base, before)


def test_a_class_of_a_known_name_is_not_known(tiny_model: TinyModel) -> None:
    base = tiny_base(tiny_model("smollm2"))
    before = base.token_nll(batches(base, 1)[0])

    class Halved(llama.LlamaForCausalLM):
        def forward(self, *inputs: Any, **options: Any) -> Any:
            output = super().forward(*inputs, **options)
            output.logits = output.logits * 0.5
            return output

    Halved.__name__ = "LlamaForCausalLM"
    base.model.__class__ = Halved
    base.choose_path()
    assert base.execution.reason == "LlamaForCausalLM has no fast path; one document a pass"
    batch = batches(base, 1)[0]
    assert torch.allclose(base.token_nll(batch).double(), alone_nll(base.model, batch), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(base.token_nll(batch), before, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("where", ["model.embed_tokens", "lm_head"])
def test_an_adapter_where_the_fast_path_does_not_look(tiny_model: TinyModel, where: str) -> None:
    base = tiny_base(tiny_model("smollm2"))
    before = base.token_nll(batches(base, 1)[0])
    torch.manual_seed(0)
    get_peft_model(base.model, LoraConfig(r=4, target_modules=[where], init_lora_weights=False))
    base.model.eval()
    base.choose_path()
    batch = batches(base, 1)[0]
    assert base.execution.kind == "reference"
    assert torch.allclose(base.token_nll(batch).double(), alone_nll(base.model, batch), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(base.token_nll(batch), before, atol=1e-3)


def test_transformers_own_observers_change_nothing(tiny_model: TinyModel) -> None:
    base = tiny_base(tiny_model("smollm2"))
    base.model(input_ids=torch.tensor([[1, 2, 3]]), output_hidden_states=True)
    base.choose_path()
    assert base.execution.kind == "fast"


def test_documents_share_a_pass_only_where_every_part_is_known(tiny_model: TinyModel) -> None:
    base = tiny_base(tiny_model("smollm2"))
    assert can_pack(base.model)
    adapter = attach(base, settings(method="dora"), seed=0)
    randomise(adapter)
    base.use_reference_path("the test asks for it")
    assert can_pack(base.model), "DoRA looks at no other token"
    batch = packed([(9, 20), (30,)], base.model.config.vocab_size)
    assert torch.allclose(base.token_nll(batch).double(), alone_nll(base.model, batch), rtol=1e-5, atol=1e-5)
    adapter.detach()
    base.model.config.is_causal = False
    assert not can_pack(base.model)
    del base.model.config.is_causal
    base.model.set_attn_implementation("eager")
    base.choose_path()
    assert base.execution.kind == "fast", "we attend by ourselves"
    base.use_reference_path("the test asks for it")
    assert torch.allclose(base.token_nll(batch).double(), alone_nll(base.model, batch), rtol=1e-5, atol=1e-5)
    base.model.set_attn_implementation("sdpa")
    base.model.model.rotary_emb.rope_type = "longrope"
    assert not can_pack(base.model), "its frequencies are those of the longest document"
