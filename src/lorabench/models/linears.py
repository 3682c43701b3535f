"""A model's linear layers by full path: which there are, their sizes, and which belong to attention, which to the MLP.

The plan reads them from the headers of weight files or from the catalogue, attachment from the loaded model; all of
them are sorted into attention and MLP by `is_attention`. Nothing here imports torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Shapes = Mapping[str, tuple[int, ...]]

_LAYER = re.compile(r"^(?P<layers>.+?)\.(?P<index>\d+)\.(?P<module>.+)$")
_MLP = re.compile(r"(?:^|_)(?:mlp|ffn?|ffns|feed_forward|feedforward)(?:_|$)")
_MLP_NAMES = {"up_proj", "gate_proj", "down_proj", "gate_up_proj"}
_MIXERS = {"mixer", "temporal_block", "mamba", "conv", "short_conv", "mlstm_layer", "ssm"}
"""What stands in attention's place in recurrent and state-space layers."""
_EXPERTS = {"experts", "block_sparse_moe"}
_ROUTERS = {"gate", "router"}
_HEADS = {"lm_head", "embed_out", "head", "output_projection"}
_BUFFERS = (
    "masked_bias inv_freq e_score_correction_bias slope_rate query_decay key_decay diagonal_decay "
    "act_fn.beta act_fn.eps"
)

_BODIES = {
    "transformer": "bloom codegen ctrl dbrx falcon gpt2 gpt_bigcode gpt_neo gptj mpt openai-gpt xlm xlnet",
    "backbone": "falcon_mamba mamba mamba2 xlstm",
    "bert": "bert bert-generation big_bird megatron-bert",
    "roberta": "camembert roberta xlm-roberta xlm-roberta-xl xmod",
    "": "biogpt cpmant data2vec-text electra ernie gpt_neox gpt_neox_japanese prophetnet reformer rembert "
    "roberta-prelayernorm roc_bert roformer rwkv",
}
"""Name of the module that holds a model's body -> the model types that call it so; "" stands for the type's own name,
and whatever is not named here says `model`."""
_RENAMED = {
    "exaone": {
        "transformer.h.": "model.layers.",
        ".attn.attention.out_proj.": ".self_attn.o_proj.",
        ".attn.attention.": ".self_attn.",
        ".mlp.c_fc_0.": ".mlp.gate_proj.",
        ".mlp.c_fc_1.": ".mlp.up_proj.",
        ".mlp.c_proj.": ".mlp.down_proj.",
    },
    "gpt_neox": {"embed_out.": "lm_head."},
    "hy_v3": {".mlp.shared_mlp.": ".mlp.shared_experts."},
}
"""By model type: parts of the stored names, and what Transformers makes of them when it loads them."""
SPLIT_WHEN_LOADED = frozenset({"hrm_text", "lara_mini", "sarvam_moe"})
"""Model types of which Transformers makes several layers out of one that is stored."""
TRANSPOSED = frozenset({"gpt2", "openai-gpt"})
"""Model types whose linear layers store [inputs, outputs]."""
_NOT_ADAPTED = {
    ".out_proj": "falcon_h1 falcon_mamba mamba mamba2 nemotron_h",
    ".dt_proj": "falcon_mamba jamba mamba",
    ".self_attn.gate_proj": "afmoe",
}
"""End of a linear layer's path -> model types that read its weight without calling it, so that no adapter there has an
effect; or, of afmoe, where PEFT takes attention's gate for the experts' and attaches nothing."""
_TIED = """
    bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot blenderbot-small bloom camembert cohere cohere2
    cohere2_moe cohere_compass_text cpmant ctrl data2vec-text electra ernie ernie4_5 ernie4_5_moe falcon falcon_mamba
    gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_assistant
    gemma4_unified_text got_ocr2 gpt2 gpt_bigcode gpt_neo gpt_neox_japanese granite_swa jetmoe lara_mini lfm2 lfm2_moe
    lfm3 mamba marian mbart megatron-bert minicpm3 modernbert-decoder moss_transcribe_diarize mpt mvp openai-gpt opt
    pegasus plbart prophetnet recurrent_gemma roberta roberta-prelayernorm roc_bert roformer smollm3 starcoder2 trocr
    vaultgemma whisper xglm xlm xlm-roberta xlm-roberta-xl xlnet xmod youtu zamba zamba2 zaya
"""
"""Model types whose output head is the embedding where config.json does not state it."""


class HasLinears(Protocol):
    """A model's linear layers that adapters can go on, so without the output head.

    `linears` maps the path of each to (inputs, outputs); `experts` holds the paths of the weights of experts and of
    what routes to them, which Transformers does not hold as linear layers. `parameters` maps the name of each to its
    size; a head that is the embedding is none. None stands for what a plan without the model's files cannot know.
    """

    @property
    def linears(self) -> Mapping[str, tuple[int, int]]: ...
    @property
    def experts(self) -> Collection[str]: ...
    @property
    def num_parameters(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def parameters(self) -> Mapping[str, int] | None: ...
    @property
    def config(self) -> Mapping[str, Any] | None: ...
    @property
    def transposed(self) -> bool:
        """Whether linear layers store [inputs, outputs]."""


def can_adapt(path: str, model_type: str) -> bool:
    """Whether an adapter on a linear layer can be attached and has an effect."""
    return not any(path.endswith(end) and model_type in types.split() for end, types in _NOT_ADAPTED.items())


@dataclass(frozen=True)
class StoredLinears:
    """The linear layers that weight files hold. `linears` also holds experts that the files keep one by one."""

    linears: dict[str, tuple[int, int]]
    experts: frozenset[str]
    parameters: dict[str, int]
    """Sizes by name."""

    @property
    def num_parameters(self) -> int:
        """All of them."""
        return sum(self.parameters.values())


def is_attention(path: str) -> bool:
    """Whether a linear layer belongs to attention, or to what mixes positions in its place; else it is the MLP's."""
    parts = path.lower().split(".")
    if any("attn" in part or "attention" in part for part in parts):
        return True
    if parts[-1] in _MLP_NAMES or any(_MLP.search(part) for part in parts):
        return False
    return any(part in _MIXERS for part in parts)


def is_embedding(path: str) -> bool:
    """Whether a weight is an embedding's, by its module's name."""
    name = path.rpartition(".")[2]
    return name in {"wte", "wpe"} or ("embed" in name and "proj" not in name)


def body_name(model_type: str) -> str:
    """The module of a causal language model that holds everything but its output head."""
    name = next((name for name, types in _BODIES.items() if model_type in types.split()), "model")
    return name or model_type.replace("-", "_")


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the output head is the embedding: as config.json states, else as the architecture does."""
    return bool(config.get("tie_word_embeddings", str(config.get("model_type")) in _TIED.split()))


def find_experts(shapes: Shapes) -> frozenset[str]:
    """Paths of the weights of experts, and of what routes to them, among named tensors."""
    paths = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) > 1}
    experts = {path for path, shape in paths.items() if _is_experts(path, shape)}
    routers = {path for path in paths if experts and _ROUTERS.intersection(path.split("."))}
    return frozenset(experts | routers)


def read_stored_linears(stored: Shapes, config: Mapping[str, Any]) -> StoredLinears:
    """The linear layers of a causal language model from its stored tensors' names and shapes, and its config.json."""
    model_type = str(config.get("model_type"))
    shapes = _in_the_model(stored, model_type, config)
    weights = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")}
    linears = {
        path: (shape[0], shape[1]) if model_type in TRANSPOSED else (shape[1], shape[0])
        for path, shape in weights.items()
        if len(shape) == 2 and _is_linear(path, shape, config) and can_adapt(path, model_type)
    }
    return StoredLinears(
        linears=dict(sorted(linears.items(), key=lambda item: _layer_index(item[0]))),
        experts=find_experts(shapes),
        parameters={name: math.prod(shape) for name, shape in shapes.items() if _is_parameter(name, shape, config)},
    )


def _in_the_model(stored: Shapes, model_type: str, config: Mapping[str, Any]) -> Shapes:
    """The tensors that are loaded, under the names they have in the model.

    A body saved by itself lacks its own name in front. Layers beyond the configured number are not loaded: they
    predict further tokens.
    """
    stored = {_renamed(name, model_type): shape for name, shape in stored.items()}
    body = body_name(model_type)
    prefix = "" if any(name.startswith(f"{body}.") for name in stored) else f"{body}."
    number = config.get("num_hidden_layers")
    limit = number if isinstance(number, int) and number > 0 else math.inf
    return {
        name if is_head(name.rpartition(".")[0]) else prefix + name: shape
        for name, shape in stored.items()
        if _layer_index(name) < limit
    }


def _renamed(name: str, model_type: str) -> str:
    for part, new in _RENAMED.get(model_type, {}).items():
        name = name.replace(part, new)
    return name


def _layer_index(path: str) -> int:
    match = _LAYER.match(path)
    return int(match["index"]) if match else -1


def _is_linear(path: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> bool:
    """Whether a matrix is a linear layer's: neither an embedding nor the output head."""
    if is_embedding(path):
        return False
    inside = _LAYER.match(path) is not None
    return inside or not (is_head(path) or shape[0] == config.get("vocab_size"))


def _is_experts(path: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is one expert's, or all experts' at once."""
    parts = path.split(".")
    fused = len(shape) == 3 and min(shape) > 1 and parts[-1].endswith(("_proj", "_linear"))
    return bool(_EXPERTS.intersection(parts)) or fused


def is_head(path: str) -> bool:
    """Whether a weight is the output head's, by its module's name."""
    return path.rpartition(".")[2] in _HEADS or path.endswith("predictions.decoder")


def _is_parameter(name: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> bool:
    """Whether a stored tensor is a parameter of its own: not a buffer, nor a head that is the embedding."""
    path, _, kind = name.rpartition(".")
    if _is_buffer(path, kind) or (kind == "bias" and len(shape) > 2):
        return False
    return not (kind == "weight" and is_head(path) and is_tied(config))


def _is_buffer(path: str, kind: str) -> bool:
    owner = path.rpartition(".")[2]
    if owner == "moe_statics":  # of Ernie, which has as a parameter what is a buffer elsewhere
        return False
    return not {kind, f"{owner}.{kind}"}.isdisjoint(_BUFFERS.split())
