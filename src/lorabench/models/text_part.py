"""Which part of a configuration and of stored weights is the text model: all of it, but for models of more than text.

A wrapper such as Gemma 3's or LLaVA's keeps the text model's settings in `text_config`, and its weights beside those of
an image or sound tower. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lorabench.core.errors import ModelError

_OUTER = ("vocab_size", "tie_word_embeddings", "is_encoder_decoder")
"""What a wrapper may state for its text model."""
TEXT_PREFIXES = {
    r"^language_model\.lm_head\.": "lm_head.",
    r"^language_model\.model\.": "model.",
    r"^model\.(?:language_model|text_model)\.": "model.",
}
"""How wrappers have named their text model's tensors -> the names that it has by itself."""
_TEXT = re.compile(r"^(?:language_model\.|model\.(?:language_model|text_model)\.|lm_head\.)")

_ENCODER_DECODERS = (
    "bart bigbird_pegasus blenderbot blenderbot-small encoder-decoder fsmt led longt5 m2m_100 marian mbart mt5 mvp "
    "nllb-moe pegasus pegasus_x plbart prophetnet switch_transformers t5 t5gemma t5gemma2 udop umt5 whisper "
    "xlm-prophetnet"
)
_ENCODERS = (
    "albert convbert deberta deberta-v2 distilbert esm eurobert flaubert fnet funnel ibert layoutlm longformer luke "
    "mobilebert modernbert mpnet mra nezha nomic_bert nystromformer qdqbert squeezebert tapas yoso"
)
_ENCODERS_UNLESS_DECODER = (
    "bert big_bird camembert data2vec-text electra ernie megatron-bert rembert roberta roberta-prelayernorm roc_bert "
    "roformer xlm-roberta xlm-roberta-xl xmod"
)
"""Encoders whose configuration makes them decoders with `is_decoder`."""


def is_wrapper(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a model of more than text, with the text model's settings inside."""
    return isinstance(config.get("text_config"), Mapping)


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text model's settings: `config` itself, or its `text_config`."""
    if not is_wrapper(config):
        return dict(config)
    stated = {name: config[name] for name in _OUTER if name in config}
    return {"model_type": f"{config.get('model_type')}_text"} | stated | dict(config["text_config"])


def text_tensors(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The text model's tensors under its own names: `shapes` itself, or a wrapper's without those of its towers."""
    if not is_wrapper(config) or not any(_TEXT.match(name) for name in shapes):
        return dict(shapes)
    return {_own_name(name): shape for name, shape in shapes.items() if _TEXT.match(name)}


def _own_name(name: str) -> str:
    for prefix, own in TEXT_PREFIXES.items():
        name = re.sub(prefix, own, name)
    return name


def require_decoder(config: Mapping[str, Any], where: str) -> None:
    """Raise ModelError for an encoder-decoder model or an encoder, by what config.json says."""
    require_no_encoder_decoder(config, where)
    values = text_config(config)
    kind = str(values.get("model_type"))[:80]
    if kind in _ENCODERS.split() or (kind in _ENCODERS_UNLESS_DECODER.split() and not values.get("is_decoder")):
        raise ModelError(
            f"{where}: it is an encoder ({kind}), whose tokens see those after them; accepted are causal language "
            "models (GPT-2, Llama)"
        )


def require_no_encoder_decoder(config: Mapping[str, Any], where: str) -> None:
    """Raise ModelError for an encoder-decoder model, by what config.json says."""
    values = text_config(config)
    kind = str(values.get("model_type"))[:80]
    if values.get("is_encoder_decoder") or kind in _ENCODER_DECODERS.split():
        raise ModelError(
            f"{where}: it is an encoder-decoder model ({kind}), which writes a text given another one; accepted are "
            "causal language models (GPT-2, Llama)"
        )
