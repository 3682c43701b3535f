"""Reads a Transformers model, adapters included, into the fast path's plan, or says in a word why it cannot.

Every number comes from the model's own modules and configuration; whatever is not known here to be computed alike
raises `NotFast`, and the model then goes the way of Transformers and PEFT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from lorabench.fast.attention import Heads
from lorabench.fast.declarations import LLAMA_LIKE, LlamaLike
from lorabench.fast.float8 import Float8Linear
from lorabench.fast.forward import Decoder, Layer, Rotary
from lorabench.fast.head import Head
from lorabench.fast.held import Float8Weight, FourBitWeight, HeldWeight, four_bit_types, is_packed
from lorabench.fast.kernels import ActivationKind, Kernels, Norm
from lorabench.fast.known import NotFast, activations, inner_model, require_known
from lorabench.fast.linear import Magnitude, Projection, Projections, Scaled
from lorabench.fast.magnitude import squared_lengths

_QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj")


def read_decoder(model: Any, kernels: Kernels) -> Decoder:
    """Plan of a loaded model as it is now, with the adapters that are attached. Raises NotFast.

    `require_known` has looked at every module's exact type, so that the readers may tell their parts by class names.
    """
    model = inner_model(model)
    require_known(model)
    held = next(model.get_output_embeddings().parameters()).dtype
    head = _current(model.get_output_embeddings())
    if type(head) is not nn.Linear or head.bias is not None:
        raise NotFast("the output head is adapted or has a bias")
    if any(weight.requires_grad and not _is_adapters(name) for name, weight in model.named_parameters()):
        raise NotFast("weights of the base are trained")
    name = type(model).__name__
    if name in LLAMA_LIKE:
        decoder = _read_llama_like(model, LLAMA_LIKE[name], head.weight, kernels)
    else:
        decoder = _READERS[name](model, head.weight, kernels)
    return replace(decoder, dtype=held, head=replace(decoder.head, alignment=kernels.head_alignment))


def _current(module: Any) -> Any:
    """The copy that PEFT trains whole in a module's place, where it does."""
    from peft.utils import ModulesToSaveWrapper

    if type(module) is not ModulesToSaveWrapper:
        return module
    is_own = module.disable_adapters or not module.active_adapters
    return module.original_module if is_own else module.modules_to_save[module.active_adapters[0]]


def _read_llama_like(model: Any, family: LlamaLike, head: Tensor, kernels: Kernels) -> Decoder:
    config, body = model.config, model.model
    table = _table(body.embed_tokens, family.prefix + family.embedding if family.scaled_embedding else "Embedding")
    scale = float(_current(body.embed_tokens).embed_scale) if family.scaled_embedding else 1.0
    scale *= config.embedding_multiplier if family.multipliers else 1.0

    def embed(ids: Tensor, positions: Tensor) -> Tensor:
        del positions
        return table[ids].float() if scale == 1.0 else table[ids].float().mul_(scale)

    rotaries = _rotaries(body.rotary_emb, family)
    parallel = family.may_be_parallel and bool(config.use_parallel_residual)
    layers = tuple(_read_layer(layer, index, config, family, rotaries) for index, layer in enumerate(body.layers))
    final_norm = _norm(body.norm, family)
    if family.multipliers:
        _require(final_norm.trained is None, "Granite's last norm, trained whole,")
        final_norm = replace(final_norm, weight=final_norm.weight / config.logits_scaling)
    cap = config.final_logit_softcapping if family.logit_cap else None
    return Decoder(embed, layers, parallel, final_norm, Head(head, cap), head.dtype, kernels)


def _read_layer(layer: Any, index: int, config: Any, family: LlamaLike, rotaries: dict[str, Rotary]) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    kind = config.layer_types[index] if family.windows == "some" else ""
    has_window = family.windows == "all" or kind == "sliding_attention"
    heads = Heads(
        config.num_attention_heads,
        config.num_key_value_heads,
        attention.head_dim,
        float(attention.scaling),
        "stacked" if family.fused else "separate",
        window=config.sliding_window if has_window else None,
        soft_cap=config.attn_logit_softcapping if family.attention_cap else None,
    )
    norms = [None if name is None else getattr(layer, name) for name in family.norms]
    if family.may_be_parallel and norms[2] is None:
        norms[2] = norms[0]
    before, after_attention, between, after_mlp = (None if norm is None else _norm(norm, family) for norm in norms)
    _require(not getattr(attention, "qk_layernorm", False), "a norm for each head")
    rotates = family.rotations != "not all" or attention.use_rope
    return Layer(
        attention_norm=before,
        query_key_value=_projections(*_modules(attention, ("qkv_proj",) if family.fused else _QUERY_KEY_VALUE)),
        heads=heads,
        attention_out=_projections(attention.o_proj),
        mlp_norm=between,
        up=_projections(*_modules(mlp, ("gate_up_proj",) if family.fused else ("gate_proj", "up_proj"))),
        activation=_activation(mlp.activation_fn if family.fused else mlp.act_fn),
        down=_projections(mlp.down_proj),
        rotary=rotaries[kind if family.rotations == "by layer type" else ""] if rotates else None,
        query_key_norms=(_norm(attention.q_norm, family), _norm(attention.k_norm, family))
        if family.head_norms
        else None,
        gate_in_up=family.fused,
        after_attention=after_attention,
        after_mlp=after_mlp,
        residual_factor=float(config.residual_multiplier) if family.multipliers else 1.0,
    )


def _read_gpt2(model: Any, head: Tensor, kernels: Kernels) -> Decoder:
    config, body = model.config, model.transformer
    _require(not config.add_cross_attention, "cross-attention")
    _require(not config.reorder_and_upcast_attn, "reordered attention")
    tokens, places = _table(body.wte), _table(body.wpe)

    def embed(ids: Tensor, positions: Tensor) -> Tensor:
        return tokens[ids].float() + places[positions].float()

    layers = []
    for layer in body.h:
        attention, mlp = layer.attn, layer.mlp
        count = attention.num_heads
        layers.append(
            Layer(
                attention_norm=_layer_norm(layer.ln_1),
                query_key_value=_projections(attention.c_attn),
                heads=Heads(count, count, attention.head_dim, float(attention.scaling), "stacked"),
                attention_out=_projections(attention.c_proj),
                mlp_norm=_layer_norm(layer.ln_2),
                up=_projections(mlp.c_fc),
                activation=_activation(mlp.act),
                down=_projections(mlp.c_proj),
            )
        )
    return Decoder(embed, tuple(layers), False, _layer_norm(body.ln_f), Head(head), head.dtype, kernels)


def _read_neox(model: Any, head: Tensor, kernels: Kernels) -> Decoder:
    config, body = model.config, model.gpt_neox
    table = _table(body.embed_in)

    def embed(ids: Tensor, positions: Tensor) -> Tensor:
        del positions
        return table[ids].float()

    rotary = _rotary(body.rotary_emb)
    layers = []
    for layer in body.layers:
        attention, mlp = layer.attention, layer.mlp
        count = config.num_attention_heads
        layers.append(
            Layer(
                attention_norm=_layer_norm(layer.input_layernorm),
                query_key_value=_projections(attention.query_key_value),
                heads=Heads(count, count, attention.head_size, float(attention.scaling), "interleaved"),
                attention_out=_projections(attention.dense),
                mlp_norm=_layer_norm(layer.post_attention_layernorm),
                up=_projections(mlp.dense_h_to_4h),
                activation=_activation(mlp.act),
                down=_projections(mlp.dense_4h_to_h),
                rotary=rotary,
            )
        )
    parallel = bool(config.use_parallel_residual)
    return Decoder(embed, tuple(layers), parallel, _layer_norm(body.final_layer_norm), Head(head), head.dtype, kernels)


_READERS: dict[str, Callable[[Any, Tensor, Kernels], Decoder]] = {
    "GPT2LMHeadModel": _read_gpt2,
    "GPTNeoXForCausalLM": _read_neox,
}


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise NotFast(f"{what} is not covered by the fast path")


def _activation(module: Any) -> ActivationKind:
    _require(type(module) in activations(), f"the activation {type(module).__name__}")
    return activations()[type(module)]


def _table(module: Any, kind: str = "Embedding") -> Tensor:
    module = _current(module)
    _require(type(module).__name__ == kind and module.max_norm is None, "the embedding")
    table: Tensor = module.weight
    return table


def _modules(parent: Any, names: Sequence[str]) -> list[Any]:
    return [getattr(parent, name) for name in names]


def _norm(module: Any, family: LlamaLike) -> Norm:
    if family.norm == "LayerNorm":
        return _layer_norm(module)
    module = _current(module)
    _require(type(module).__name__ == f"{family.prefix}RMSNorm", "a norm")
    epsilon = module.eps if family.norm_offset else module.variance_epsilon
    weight = module.weight.detach().float() + family.norm_offset
    return Norm(weight, None, epsilon, centred=False, trained=_trained(module, family.norm_offset))


def _layer_norm(module: Any) -> Norm:
    module = _current(module)
    _require(type(module) is nn.LayerNorm, "a norm")
    bias = None if module.bias is None else module.bias.detach().float()
    return Norm(module.weight.detach().float(), bias, module.eps, centred=True, trained=_trained(module))


def _trained(norm: Any, offset: float = 0.0) -> Callable[[], tuple[Tensor, Tensor | None]] | None:
    """How a norm's weight and bias are read where they are trained."""
    if not norm.weight.requires_grad:
        return None
    return lambda: (norm.weight + offset if offset else norm.weight, getattr(norm, "bias", None))


def _rotaries(module: Any, family: LlamaLike) -> dict[str, Rotary]:
    """The rotary embedding of each type of layer, or of "" where there is but one."""
    if family.rotations == "by layer type":
        return {kind: _rotary(module, kind) for kind in module.rope_type}
    return {"": _rotary(module)}


def _rotary(module: Any, kind: str = "") -> Rotary:
    start = f"{kind}_" if kind else ""
    rope_type = module.rope_type[kind] if kind else module.rope_type
    _require("dynamic" not in rope_type, f"{rope_type} rotary embedding")
    factor = float(getattr(module, f"{start}attention_scaling"))
    if rope_type != "longrope":
        return Rotary(getattr(module, f"{start}inv_freq").detach().float(), factor)
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    short = getattr(module, f"{start}original_inv_freq").detach().float()
    settings = module.config.rope_parameters[kind] if kind else module.config.rope_parameters
    longest = int(settings["original_max_position_embeddings"])
    long, _ = ROPE_INIT_FUNCTIONS[rope_type](module.config, short.device, seq_len=longest + 1, layer_type=kind or None)
    return Rotary(short, factor, long.float(), longest)


def _projections(*modules: Any) -> Projections:
    return Projections(tuple(_projection(module) for module in modules))


def _projection(module: Any) -> Projection:
    from peft.tuners.lora import Linear as LoraLinear
    from peft.tuners.vera import Linear as VeraLinear

    is_lora = type(module) in (LoraLinear, *four_bit_types()[1])
    is_adapted = is_lora or type(module) is VeraLinear
    weight, bias = _layer(module.base_layer if is_adapted else _current(module))
    names = _active(module) if is_adapted else ()
    if not names:
        return Projection(weight, bias)
    return (_with_lora if is_lora else _with_vera)(module, names[0], weight, bias)


def _layer(base: Any) -> tuple[Tensor | HeldWeight, Tensor | None]:
    """Weight [in, out], or what it is made of, and bias of the base's own layer."""
    from transformers.pytorch_utils import Conv1D

    _require(not any(parameter.requires_grad for parameter in base.parameters()), "a linear layer trained whole")
    weight: Tensor | HeldWeight
    if type(base) is nn.Linear:
        weight = base.weight.detach().t()
    elif type(base) is Conv1D:
        weight = base.weight.detach()
    elif type(base) in four_bit_types()[0]:
        _require(not is_packed(base), "a four-bit layer that packs its weights")
        weight = FourBitWeight(base)
    elif type(base) is Float8Linear:
        weight = Float8Weight(base)
    else:
        raise NotFast(f"{type(base).__name__} is not covered by the fast path")
    return weight, None if base.bias is None else base.bias.detach()


def _with_lora(adapter: Any, name: str, weight: Tensor | HeldWeight, bias: Tensor | None) -> Projection:
    magnitude = _magnitude(adapter, name, weight, bias)
    return Projection(
        weight,
        bias if magnitude is None else None,
        a=adapter.lora_A[name].weight,
        second=adapter.lora_B[name].weight,
        scaling=float(adapter.scaling[name]),
        dropout=_dropout(adapter.lora_dropout[name]),
        magnitude=magnitude,
    )


def _with_vera(adapter: Any, name: str, weight: Tensor | HeldWeight, bias: Tensor | None) -> Projection:
    shared = adapter.vera_B[name][: adapter.out_features].float()
    return Projection(
        weight,
        bias,
        a=adapter.vera_A[name][:, : adapter.in_features].float(),
        second=Scaled(shared, adapter.vera_lambda_d[name], adapter.vera_lambda_b[name]),
        dropout=_dropout(adapter.vera_dropout[name]),
    )


def _dropout(module: Any) -> float:
    return float(module.p) if isinstance(module, nn.Dropout) else 0.0


def _magnitude(adapter: Any, name: str, held: Tensor | HeldWeight, bias: Tensor | None) -> Magnitude | None:
    """DoRA's; of its dropout PEFT makes more than one product of each layer."""
    if name not in adapter.lora_variant:
        return None
    _require(not isinstance(adapter.lora_dropout[name], nn.Dropout), "DoRA with dropout")
    weight = held if isinstance(held, Tensor) else held.dense()
    return Magnitude(adapter.lora_magnitude_vector[name].weight, squared_lengths(weight), bias)


def _active(adapter: Any) -> Sequence[str]:
    """The names of the adapters of a layer that have an effect: one at most."""
    from peft.tuners.lora.variants import DoraLinearVariant

    if adapter.disable_adapters:
        return []
    own = getattr(adapter, "lora_A", None) or adapter.vera_lambda_d
    names = [name for name in adapter.active_adapters if name in own]
    _require(len(names) <= 1 and not adapter.merged, "more than one adapter, or a merged one,")
    if not hasattr(adapter, "lora_A"):
        return names
    for name in names:
        is_dora = type(adapter.lora_variant.get(name)) is DoraLinearVariant
        _require(is_dora or name not in adapter.lora_variant, "this variant of LoRA")
        _require(not adapter.lora_bias.get(name, False), "a bias in the adapter")
    return names


def _is_adapters(name: str) -> bool:
    """Whether a parameter is an adapter's, or of a module that is trained whole beside it, by its name in PEFT."""
    return any(part in name for part in ("lora_", "vera_lambda_", "modules_to_save."))
