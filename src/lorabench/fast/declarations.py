"""What sets the families apart that are built like Llama: a line each, read by `lorabench.fast.families`.

A layer of theirs has `self_attn` and `mlp`, norms of the residual stream or of what is added to it, and rotary
embeddings. Only what a line states is computed; a number of it comes from the loaded model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Names = tuple[str | None, str | None, str | None, str | None]
_BEFORE: Names = ("input_layernorm", None, "post_attention_layernorm", None)
_AFTER: Names = (None, "post_attention_layernorm", None, "post_feedforward_layernorm")
_AROUND: Names = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


@dataclass(frozen=True)
class LlamaLike:
    """A family in Transformers; the defaults are Llama's."""

    package: str
    prefix: str
    """What the names of its classes begin with."""
    body: str = "Model"
    norms: Names = _BEFORE
    """A layer's norms: before and after attention, before and after the MLP."""
    norm: Literal["RMSNorm", "LayerNorm"] = "RMSNorm"
    norm_offset: float = 0.0
    """What is added to the weight of a norm."""
    head_norms: bool = False
    """Queries and keys are normed, head by head or over all heads, as the weight is wide."""
    fused: bool = False
    """One projection for queries, keys and values, and one for gate and up."""
    scaled_embedding: bool = False
    windows: Literal["none", "all", "some"] = "none"
    """Which layers attend within config.sliding_window: all, or those that config.layer_types says."""
    attention_cap: bool = False
    """Scores are capped at config.attn_logit_softcapping."""
    logit_cap: bool = False
    """Logits are capped at config.final_logit_softcapping."""
    rotations: Literal["one", "by layer type", "not all"] = "one"
    multipliers: bool = False
    """config.embedding_multiplier, residual_multiplier and logits_scaling."""
    may_be_parallel: bool = False
    """config.use_parallel_residual: attention and MLP read the same norm."""

    @property
    def model_type(self) -> str:
        """What their config.json calls them: a model that is more than text has a package for both."""
        return f"{self.package}_text" if self.body == "TextModel" else self.package

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the classes of its modules."""
        names = [self.body, "DecoderLayer", "Attention", "MLP", "RotaryEmbedding"]
        names += ["RMSNorm"] if self.norm == "RMSNorm" else []
        return tuple(self.prefix + name for name in [*names, *([self.embedding] if self.scaled_embedding else [])])

    @property
    def embedding(self) -> str:
        """Name of the embedding's class without the prefix."""
        return "TextScaledWordEmbedding" if self.scaled_embedding else "Embedding"


LLAMA_LIKE = {
    "LlamaForCausalLM": LlamaLike("llama", "Llama"),
    "MistralForCausalLM": LlamaLike("mistral", "Mistral", windows="all"),
    "Qwen2ForCausalLM": LlamaLike("qwen2", "Qwen2", windows="some"),
    "Qwen3ForCausalLM": LlamaLike("qwen3", "Qwen3", head_norms=True, windows="some"),
    "Phi3ForCausalLM": LlamaLike("phi3", "Phi3", fused=True, windows="all"),
    "Olmo2ForCausalLM": LlamaLike("olmo2", "Olmo2", norms=_AFTER, head_norms=True),
    "SmolLM3ForCausalLM": LlamaLike("smollm3", "SmolLM3", rotations="not all", windows="some"),
    "GraniteForCausalLM": LlamaLike("granite", "Granite", multipliers=True),
    "StableLmForCausalLM": LlamaLike("stablelm", "StableLm", norm="LayerNorm", may_be_parallel=True),
    "GemmaForCausalLM": LlamaLike("gemma", "Gemma", norm_offset=1.0, scaled_embedding=True),
    "Gemma2ForCausalLM": LlamaLike(
        "gemma2", "Gemma2", norms=_AROUND, norm_offset=1.0, scaled_embedding=True,
        windows="some", attention_cap=True, logit_cap=True,
    ),
    "Gemma3ForCausalLM": LlamaLike(
        "gemma3", "Gemma3", "TextModel", norms=_AROUND, norm_offset=1.0, scaled_embedding=True, head_norms=True,
        windows="some", logit_cap=True, rotations="by layer type",
    ),
}  # fmt: skip
"""Class of the causal language model: how it is built."""
FAST_TYPES = frozenset({"gpt2", "gpt_neox", *(family.model_type for family in LLAMA_LIKE.values())})
"""The `model_type` in the configurations of models with a fast path."""
MAX_LOGITS = 1 << 26
"""Logits of one pass where a model makes them itself: 256 MiB in float32."""
