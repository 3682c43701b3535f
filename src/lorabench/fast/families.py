"""Reads a Transformers model, adapters included, into the fast path's plan, or says in a word why it cannot.

Every number comes from the model's own modules and configuration; whatever is not known here to be computed alike
raises `NotFast`, and the model then goes the way of Transformers and PEFT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from lorabench.fast.attention import Heads, Layout
from lorabench.fast.forward import Decoder, Layer
from lorabench.fast.kernels import ActivationKind, Kernels, Norm
from lorabench.fast.known import NotFast, activations, inner_model, require_known
from lorabench.fast.linear import Projection, Projections


def read_decoder(model: Any, kernels: Kernels) -> Decoder:
    """Plan of a loaded model as it is now, with the adapters that are attached. Raises NotFast.

    `require_known` has looked at every module's exact type, so that the readers may tell their parts by class names.
    """
    model = inner_model(model)
    require_known(model)
    head: Any = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        raise NotFast("the output head is adapted or has a bias")
    if any(parameter.requires_grad and "lora_" not in name for name, parameter in model.named_parameters()):
        raise NotFast("weights of the base are trained")
    return _READERS[type(model).__name__](model, head.weight, kernels)


def _read_llama(model: Any, head: Tensor, kernels: Kernels) -> Decoder:
    config, body = model.config, model.model
    gemma = type(model).__name__ == "GemmaForCausalLM"
    table = _table(body.embed_tokens, "GemmaTextScaledWordEmbedding" if gemma else "Embedding")
    scale = float(body.embed_tokens.embed_scale) if gemma else 1.0

    def embed(ids: Tensor, positions: Tensor) -> Tensor:
        del positions
        return table[ids].float().mul_(scale) if gemma else table[ids].float()

    def norm(module: Any) -> Norm:
        _require(type(module).__name__ == ("GemmaRMSNorm" if gemma else "LlamaRMSNorm"), "a norm")
        weight = module.weight.detach().float()
        epsilon = module.eps if gemma else module.variance_epsilon
        return Norm(weight + 1.0 if gemma else weight, None, epsilon, centred=False)

    layers = []
    for layer in body.layers:
        attention, mlp = layer.self_attn, layer.mlp
        heads = _heads(config.num_attention_heads, config.num_key_value_heads, attention.head_dim, attention.scaling)
        layers.append(
            Layer(
                attention_norm=norm(layer.input_layernorm),
                query_key_value=_projections(attention.q_proj, attention.k_proj, attention.v_proj),
                heads=heads,
                attention_out=_projections(attention.o_proj),
                mlp_norm=norm(layer.post_attention_layernorm),
                up=_projections(mlp.gate_proj, mlp.up_proj),
                activation=_activation(mlp.act_fn),
                down=_projections(mlp.down_proj),
            )
        )
    rotary = _frequencies(body.rotary_emb)
    return Decoder(embed, rotary, tuple(layers), False, norm(body.norm), head, head.dtype, kernels)


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
                heads=_heads(count, count, attention.head_dim, attention.scaling, "stacked"),
                attention_out=_projections(attention.c_proj),
                mlp_norm=_layer_norm(layer.ln_2),
                up=_projections(mlp.c_fc),
                activation=_activation(mlp.act),
                down=_projections(mlp.c_proj),
            )
        )
    return Decoder(embed, None, tuple(layers), False, _layer_norm(body.ln_f), head, head.dtype, kernels)


def _read_neox(model: Any, head: Tensor, kernels: Kernels) -> Decoder:
    config, body = model.config, model.gpt_neox
    table = _table(body.embed_in)

    def embed(ids: Tensor, positions: Tensor) -> Tensor:
        del positions
        return table[ids].float()

    layers = []
    for layer in body.layers:
        attention, mlp = layer.attention, layer.mlp
        count = config.num_attention_heads
        layers.append(
            Layer(
                attention_norm=_layer_norm(layer.input_layernorm),
                query_key_value=_projections(attention.query_key_value),
                heads=_heads(count, count, attention.head_size, attention.scaling, "interleaved"),
                attention_out=_projections(attention.dense),
                mlp_norm=_layer_norm(layer.post_attention_layernorm),
                up=_projections(mlp.dense_h_to_4h),
                activation=_activation(mlp.act),
                down=_projections(mlp.dense_4h_to_h),
            )
        )
    rotary = _frequencies(body.rotary_emb)
    parallel = bool(config.use_parallel_residual)
    return Decoder(
        embed, rotary, tuple(layers), parallel, _layer_norm(body.final_layer_norm), head, head.dtype, kernels
    )


_READERS: dict[str, Callable[[Any, Tensor, Kernels], Decoder]] = {
    "LlamaForCausalLM": _read_llama,
    "GemmaForCausalLM": _read_llama,
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
    _require(type(module).__name__ == kind and module.max_norm is None, "the embedding")
    table: Tensor = module.weight
    return table


def _heads(queries: int, keys: int, width: int, factor: float, layout: Layout = "separate") -> Heads:
    return Heads(queries, keys, width, float(factor), layout)


def _layer_norm(module: Any) -> Norm:
    _require(type(module) is nn.LayerNorm, "a norm")
    bias = None if module.bias is None else module.bias.detach().float()
    return Norm(module.weight.detach().float(), bias, module.eps, centred=True)


def _frequencies(module: Any) -> Tensor:
    _require(module.rope_type == "default" and module.attention_scaling == 1.0, f"{module.rope_type} rotary embedding")
    frequencies: Tensor = module.inv_freq.detach().float()
    return frequencies


def _projections(*modules: Any) -> Projections:
    return Projections(tuple(_projection(module) for module in modules))


def _projection(module: Any) -> Projection:
    from peft.tuners.lora import Linear as LoraLinear
    from transformers.pytorch_utils import Conv1D

    base, adapter = (module.base_layer, module) if type(module) is LoraLinear else (module, None)
    if type(base) is nn.Linear:
        weight = base.weight.detach().t()
    elif type(base) is Conv1D:
        weight = base.weight.detach()
    else:
        raise NotFast(f"{type(base).__name__} is not covered by the fast path")
    bias = None if base.bias is None else base.bias.detach()
    if adapter is None:
        return Projection(weight, bias)
    names = _active(adapter)
    if not names:
        return Projection(weight, bias)
    name = names[0]
    dropout = adapter.lora_dropout[name]
    return Projection(
        weight,
        bias,
        a=adapter.lora_A[name].weight,
        b=adapter.lora_B[name].weight,
        scaling=float(adapter.scaling[name]),
        dropout=float(dropout.p) if isinstance(dropout, nn.Dropout) else 0.0,
    )


def _active(adapter: Any) -> Sequence[str]:
    if adapter.disable_adapters:
        return []
    names = [name for name in adapter.active_adapters if name in adapter.lora_A]
    _require(len(names) <= 1 and not adapter.merged, "more than one adapter, or a merged one,")
    for name in names:
        _require(name not in adapter.lora_variant, "this variant of LoRA")
        _require(not adapter.lora_bias.get(name, False), "a bias in the adapter")
    return names
