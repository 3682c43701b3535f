"""Which models and modules we know how to compute: by exact type and without hooks, for a subclass may do anything."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from lorabench.fast.declarations import LLAMA_LIKE
from lorabench.fast.float8 import Float8Linear
from lorabench.fast.held import four_bit_types
from lorabench.fast.kernels import ActivationKind

_FAMILIES = {
    **{name: (family.package, family.parts) for name, family in LLAMA_LIKE.items()},
    "GPT2LMHeadModel": ("gpt2", ("GPT2Model", "GPT2Block", "GPT2Attention", "GPT2MLP")),
    "GPTNeoXForCausalLM": (
        "gpt_neox",
        ("GPTNeoXModel", "GPTNeoXLayer", "GPTNeoXAttention", "GPTNeoXMLP", "GPTNeoXRotaryEmbedding"),
    ),
}
"""Class of the causal language model: its package in Transformers, and the classes of its parts."""
LENGTH_DEPENDENT_ROTATIONS = frozenset({"dynamic", "longrope"})
"""Their frequencies depend on the longest document in the pass, so that only documents of one length can share one."""
_TOKEN_BY_TOKEN = {
    "adalora": "AdaLoraModel", "boft": "BOFTModel", "fourierft": "FourierFTModel", "hra": "HRAModel", "ia3": "IA3Model",
    "ln_tuning": "LNTuningModel", "loha": "LoHaModel", "lokr": "LoKrModel", "miss": "MissModel", "oft": "OFTModel",
    "randlora": "RandLoraModel",
}  # fmt: skip
"""PEFT's packages of adapters whose layers treat each token by itself, and their models, whose pass adds nothing."""
_OBSERVERS = "transformers.utils.output_capturing"
"""Transformers' own hooks that note outputs down and change none."""


class NotFast(Exception):
    """The fast path does not cover this model or adapter; the message says which part."""


def inner_model(model: Any) -> Any:
    """Transformers' model inside PEFT's where PEFT's forward pass adds nothing to it, as with LoRA; else `model`."""
    from peft import LoraModel, PeftModel, PeftModelForCausalLM, VeraModel

    plain = (LoraModel, VeraModel, *_token_by_token()[0])
    if type(model) in (PeftModel, PeftModelForCausalLM) and type(model.base_model) in plain:
        own = (model, model.base_model)
        if not model.active_peft_config.is_prompt_learning and not any(is_changed(module) for module in own):
            return model.base_model.model
    return model


def require_known(model: Any, *more: frozenset[type]) -> None:
    """Raises NotFast for the first part of Transformers' model, adapters included, that is not known here.

    `more` are types that count as known.
    """
    types = _known_types(type(model).__name__)
    if types:
        types = types.union({Float8Linear}, *four_bit_types(), *more)
    if type(model) not in types:
        is_adapted = hasattr(model, "peft_type")
        what = f"an adapter of the kind {model.peft_type.value}" if is_adapted else type(model).__name__
        raise NotFast(f"{what} has no fast path")
    config = model.config
    if not getattr(config, "is_causal", True) or getattr(config, "use_bidirectional_attention", False):
        raise NotFast("attention to later tokens is not covered by the fast path")
    for name, module in model.named_modules():
        if type(module) in _token_by_token()[1] - types:
            kind = type(module).__module__.split(".")[2].upper()
            raise NotFast(f"an adapter of the kind {kind} has no fast path")
        if type(module) not in types:
            raise NotFast(f"{name} ({type(module).__name__}) is not covered by the fast path")
        if is_changed(module):
            raise NotFast(f"a hook on {name or 'the model'} is not covered by the fast path")


def can_pack(model: Any) -> bool:
    """Whether documents can share a pass through Transformers' own modules, told apart by our attention."""
    from peft.tuners.lora import Linear
    from peft.tuners.lora.variants import DoraLinearVariant

    model = inner_model(model)
    try:
        require_known(model, _token_by_token()[1])
    except NotFast:
        return False
    adapted = [module for module in model.modules() if type(module) in (Linear, *four_bit_types()[1])]
    variants = [variant for module in adapted for variant in module.lora_variant.values()]
    rotations = {kind for module in model.modules() for kind in rotation_kinds(module)}
    return not rotations & LENGTH_DEPENDENT_ROTATIONS and all(
        type(variant) is DoraLinearVariant for variant in variants
    )


def logits_of(model: Any, hidden: Tensor) -> Tensor:
    """Logits [..., V] of the last hidden states [..., width], by the modules of a model that `can_pack`."""
    model = inner_model(model)
    logits: Tensor = model.get_output_embeddings()(hidden)
    family = LLAMA_LIKE.get(type(model).__name__)
    if family is not None and family.multipliers:
        logits = logits / model.config.logits_scaling
    cap = model.config.final_logit_softcapping if family is not None and family.logit_cap else None
    return logits if cap is None else cap * (logits / cap).tanh()


def rotation_kinds(module: Any) -> set[str]:
    """The types of a rotary embedding, which may be one for each type of layer."""
    kinds = getattr(module, "rope_type", ())
    return {kinds} if isinstance(kinds, str) else {kinds[layer_type] for layer_type in kinds}


@cache
def activations() -> dict[type, ActivationKind]:
    """Transformers' activation modules that the kernels compute."""
    from transformers.activations import GELUActivation, GELUTanh, NewGELUActivation, SiLUActivation

    return {
        nn.SiLU: "silu",
        SiLUActivation: "silu",
        GELUActivation: "gelu_erf",
        NewGELUActivation: "gelu_tanh",
        GELUTanh: "gelu_tanh",
    }


def is_changed(module: nn.Module) -> bool:
    """Whether somebody has put their own code before, after or in place of the module's forward pass."""
    before_and_after = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    backward = module._backward_hooks or module._backward_pre_hooks
    return (
        "forward" in vars(module) or bool(backward) or any(hook.__module__ != _OBSERVERS for hook in before_and_after)
    )


@cache
def _token_by_token() -> tuple[tuple[type, ...], frozenset[type]]:
    """Models of PEFT's adapters that treat each token by itself, and the types of their modules."""
    packages = {name: import_module(f"peft.tuners.{name}") for name in _TOKEN_BY_TOKEN}
    layers = [import_module(f"peft.tuners.{name}.layer") for name in packages]
    modules = {
        part
        for layer in layers
        for part in vars(layer).values()
        if isinstance(part, type) and issubclass(part, nn.Module) and part.__module__ == layer.__name__
    }
    return tuple(getattr(packages[name], model) for name, model in _TOKEN_BY_TOKEN.items()), frozenset(modules)


@cache
def _known_types(model_class: str) -> frozenset[type]:
    """Every type that may occur in a model of the class; none where the class is not known."""
    if model_class not in _FAMILIES:
        return frozenset()
    from peft.tuners._buffer_dict import BufferDict
    from peft.tuners.lora import Linear
    from peft.tuners.lora.dora import DoraLinearLayer
    from peft.tuners.vera import Linear as VeraLinear
    from peft.utils import ModulesToSaveWrapper
    from transformers.pytorch_utils import Conv1D

    package, names = _FAMILIES[model_class]
    modeling = import_module(f"transformers.models.{package}.modeling_{package}")
    own = {getattr(modeling, name) for name in (model_class, *names)}
    containers = {nn.ModuleList, nn.ModuleDict, nn.ParameterDict, BufferDict, ModulesToSaveWrapper}
    layers = {nn.Linear, Conv1D, nn.Embedding, nn.LayerNorm, nn.Dropout, nn.Identity}
    return frozenset({*own, *containers, *layers, *activations(), Linear, DoraLinearLayer, VeraLinear})
